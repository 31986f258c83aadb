/**
 * Power cuts of a cluster: three nodes on file systems of their own. All three are cut at the same
 * instant, or the owner alone while the others go on. Every mail that got 250 arrives.
 */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { SeededRandom } from '../../src/base/random.ts'
import { freePort } from '../ports.ts'
import { COUNTS, PATIENCE_MS, SEED } from './counts.ts'
import { type Account, accountLine, Load, settleAccount } from './ledger.ts'
import {
  copyDisk,
  endRest,
  flusherOff,
  mountCopy,
  mountNew,
  onLoops,
  stopTree,
  unmount,
} from './loop.ts'
import { Postern } from './postern.ts'
import { Sink } from './sink.ts'

const clock = new SystemClock()
const NODES = 3

/** One machine: its file system, its ports, and the node that runs on it now. */
type Machine = {
  readonly dir: string
  readonly options: readonly string[]
  readonly smtpPort: number
  node: Postern
}

async function machine(dir: string, token: string | null): Promise<Machine> {
  mkdirSync(dir)
  await mountNew(dir, '400M')
  const smtpPort = freePort()
  const options = [
    '--peer',
    `127.0.0.1:${freePort()}`,
    '--advertise',
    '127.0.0.1',
    '--time-scale',
    '20',
  ]
  const node = await Postern.start({
    data: join(dir, 'disk/data'),
    smtpPort,
    options: [...options, ...(token === null ? [] : ['--join', token])],
  })
  return { dir, options, smtpPort, node }
}

async function invite(node: Postern, uses: number): Promise<string> {
  const init = { method: 'POST', body: JSON.stringify({ uses }) }
  return (await node.api<{ token: string }>('/api/v1/invitations', init)).token
}

async function until(what: () => Promise<boolean>, timeoutMs: number): Promise<boolean> {
  const endMono = clock.monoMs() + timeoutMs
  for (;;) {
    if (await what().catch(() => false)) return true
    if (clock.monoMs() > endMono) return false
    await pause(clock, 50)
  }
}

/** During the load the next hop defers everything; afterwards it takes everything. */
async function cut(seed: number, whom: 'all' | 'owner'): Promise<Account> {
  const random = new SeededRandom(seed)
  const dir = mkdtempSync(join(tmpdir(), 'postern-proof-cuts-'))
  const sink = new Sink({ sender: () => '451 4.3.0 Not before the cut' })
  const machines: Machine[] = []
  let load: Load | null = null
  try {
    const first = await machine(join(dir, 'mx1'), null)
    machines.push(first)
    await first.node.addDomain('example.com', sink.nextHop)
    for (const key of ['queue.first', 'queue.longest']) await first.node.set(key, '1')
    const token = await invite(first.node, NODES - 1)
    for (let n = 2; n <= NODES; n += 1) machines.push(await machine(join(dir, `mx${n}`), token))
    const isWhole = async () => (await first.node.metric('postern_nodes_alive')) === NODES
    expect(await until(isWhole, 30_000)).toBeTrue()
    load = new Load({
      port: first.smtpPort,
      domain: 'example.com',
      connections: 8,
      seed,
      sizes: [600, 4_000, 20_000, 200_000],
    })
    await load.ledger.untilAcked(60 + random.below(200), 60_000)
    await pause(clock, random.below(30))
    const struck = whom === 'all' ? machines : [first]
    const trees = struck.map(({ node }) => stopTree(node.pid))
    for (const { dir: place } of struck) await copyDisk(place)
    await Promise.all(struck.map(({ node }) => node.kill()))
    for (const tree of trees) endRest(tree)
    await load.stop()
    sink.manners = {}
    for (const one of struck) {
      await mountCopy(one.dir)
      const { options, smtpPort } = one
      const data = join(one.dir, 'copy/data')
      one.node = await Postern.start({ data, smtpPort, options, readyMs: 30_000 })
    }
    for (const { node } of machines) await node.command('queue', 'retry')
    const { ledger } = load
    const isSafe = () => settleAccount(ledger, sink.arrivals).lost.length === 0
    await sink.until(isSafe, 90_000)
    const account = settleAccount(ledger, sink.arrivals)
    if (account.lost.length > 0) {
      for (const token of account.lost) await tell(ledger.entries.get(token)?.reply ?? '', machines)
    } else for (const { node } of machines) await node.queueEmpty(60_000)
    return settleAccount(ledger, sink.arrivals)
  } finally {
    await load?.stop()
    for (const { node } of machines) await node.dispose()
    sink.stop()
    for (const one of machines) await unmount(one.dir)
    rmSync(dir, { recursive: true, force: true })
  }
}

/** All that the nodes know of a mail that is missing. */
async function tell(reply: string, machines: readonly Machine[]): Promise<void> {
  const id = reply.split(' ').at(-1) ?? ''
  for (const { node } of machines) {
    const { out, err } = await node.command('queue', 'show', id)
    const log = node.log().split('\n')
    const lines = log.filter((line) => line.includes(id) || /spool|barred|adopt|corrupt/.test(line))
    console.info(`${node.data}: ${out}${err}\n${lines.join('\n')}`)
  }
}

onLoops(`${COUNTS.clusterCuts} power cuts of a cluster, seed ${SEED}`, () => {
  let flusherOn = () => {}
  beforeAll(async () => {
    flusherOn = await flusherOff()
  }, 90_000)
  afterAll(() => flusherOn())

  for (let n = 0; n < COUNTS.clusterCuts; n += 1) {
    const whom = n % 2 === 0 ? 'all' : 'owner'
    test(
      `every mail that got 250 survives cut ${n + 1}, of ${whom === 'all' ? 'all three' : 'the owner alone'}`,
      async () => {
        const account = await cut(SEED + n, whom)
        console.info(`cut ${n + 1}, ${whom}: ${accountLine(account)}`)
        expect(account.acked).toBeGreaterThan(30)
        expect(account).toMatchObject({ lost: [], phantom: [], corrupt: [], duplicates: [] })
      },
      PATIENCE_MS,
    )
  }
})
