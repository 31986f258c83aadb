/** `demo`: a newcomer's first minute. Three nodes, a mail server behind them, sample mails; all on
 * loopback. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { GatewayError, messageOf } from '../../base/errors.ts'
import { randomHex } from '../../base/random.ts'
import { formatAddress, isLoopback, parseAddress, parseWeb } from '../address.ts'
import { Api, pathOf } from '../api.ts'
import type { Call } from '../parse.ts'
import { plain } from '../print.ts'
import { logLevelOf } from '../serve.ts'
import {
  type Address,
  optionOf,
  type Run,
  type RunningNode,
  UsageError,
  type World,
} from '../world.ts'
import { serveNames } from './names.ts'
import { DemoNodes } from './nodes.ts'
import { DEMO_DOMAIN, samples } from './samples.ts'
import { sendMails } from './send.ts'
import { Sink } from './sink.ts'
import { type SinkPage, serveSinkPage } from './sink-page.ts'

/** All ends that a demo must close, in the order in which they were opened. */
type Opened = (() => Promise<void> | void)[]

export const demo: Run = async (call, world) => {
  const addresses = addressesOf(call)
  const given = optionOf(call, '--data')
  const dataDir = given ?? mkdtempSync(join(tmpdir(), 'postern-demo-'))
  const opened: Opened = []
  const ended = world.untilSignal()
  if (given === undefined) opened.push(() => rmSync(dataDir, { recursive: true, force: true }))
  try {
    const sink = new Sink(() => world.clock.wallMs())
    const sinkAddress = await sink.listen(addresses.sink, '--sink')
    opened.push(() => sink.close())

    // Before the nodes: a port that is taken is told at once.
    const nodes = new DemoNodes(world)
    const page = serveSinkPage(addresses.sinkWeb, {
      nodes: () => nodes.list(),
      events: () => nodes.events(),
      toggle: (name) => nodes.toggle(name),
      arrivals: () => sink.arrivals(),
      again: async () => {
        await sendSamples(nodes.running(), world)
      },
    })
    opened.push(() => page.stop())

    const names = await serveNames()
    opened.push(() => names.close())
    opened.push(() => nodes.stop())
    const node = await nodes.start({
      dataDir,
      smtp: addresses.smtp,
      web: addresses.web,
      nameServers: [names.address],
      command: world.command,
      logLevel: logLevelOf(call, 'warn'),
    })
    const next = `smtp://${formatAddress(sinkAddress)}`
    const api = new Api(dataDir)
    await api.call('PUT', pathOf(['domains', DEMO_DOMAIN]), { nextHops: [next] })
    // All of its clients are on loopback, and stand for strangers.
    await api.call('PUT', pathOf(['settings', 'sender.relays']), { value: [] })

    await world.out(welcome(node, page, sinkAddress))
    // Who stops the demo does not wait for the others to join, or for the replies to its samples.
    const replies = await Promise.race([
      nodes.join().then(() => sendSamples(nodes.running(), world)),
      ended.then(() => ''),
    ])
    const rest = given === undefined ? 'Nothing is kept.' : `The data stays in ${given}.`
    await world.out(`${replies}\nCtrl-C stops it. ${rest}\n`)
    await ended
    return 0
  } finally {
    for (const close of opened.reverse()) await close()
  }
}

function addressesOf(call: Call) {
  const web = optionOf(call, '--web') ?? '127.0.0.1:8080'
  const addressOf = (option: string, otherwise: string) =>
    onLoopback(option, parseAddress(option, optionOf(call, option) ?? otherwise))
  return {
    smtp: addressOf('--smtp', '127.0.0.1:2525'),
    web: onLoopback('--web', parseWeb('--web', /^https?:/i.test(web) ? web : `http://${web}`)),
    sink: addressOf('--sink', '127.0.0.1:2526'),
    sinkWeb: addressOf('--sink-web', '127.0.0.1:8081'),
  }
}

function onLoopback<Place extends Address>(option: string, address: Place): Place {
  if (isLoopback(address.host)) return address
  throw new UsageError(
    option.replace(/^--/, ''),
    `The demo stays on this machine: ${option} must be on loopback.`,
    'Use 127.0.0.1 or [::1]; for more there is "postern serve".',
  )
}

function welcome(node: RunningNode, page: SinkPage, sink: Address): string {
  const code = codeIn(node.setupUrl)
  return [
    '',
    'Postern demo',
    '',
    `  Web pages       ${node.setupUrl ?? node.web.url}`,
    ...(code === null ? [] : [`  One-time code   ${code}`]),
    `  Nodes, arrivals ${page.url}`,
    '',
    `  Mail for ${DEMO_DOMAIN} comes in at ${formatAddress(node.smtp)}; what is not held goes on to`,
    `  ${formatAddress(sink)}, which stands for your mail server. Two more nodes join now; stop one`,
    '  there, and see that nothing is missing.',
    '',
    '',
  ].join('\n')
}

/** The code in the address of the set-up, for those who type it. */
function codeIn(setupUrl: string | null): string | null {
  if (setupUrl === null) return null
  const { searchParams, hash } = new URL(setupUrl)
  return searchParams.get('code') ?? (hash === '' ? null : hash.slice(1))
}

/** Sends the samples to the nodes in turn; says what was answered to each. Never rejects. */
async function sendSamples(nodes: readonly RunningNode[], world: World): Promise<string> {
  const mails = samples(randomHex(world.random, 6), world.clock.wallMs())
  const said: string[] = []
  for (const [at, node] of nodes.entries()) {
    const share = mails.filter((_, place) => place % nodes.length === at)
    try {
      const replies = await sendMails(share, node.smtp, world.clock)
      const lines = share.map(
        ({ what }, place) => `  sent ${what.padEnd(31)} ${plain(replies[place] ?? '')}\n`,
      )
      said.push(...lines)
    } catch (error) {
      if (!(error instanceof GatewayError)) throw error
      said.push(`  Sample mails could not be sent: ${messageOf(error)}.\n`)
    }
  }
  return said.join('')
}
