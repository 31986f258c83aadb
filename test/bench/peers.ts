/** The peers of a run: stock Postfix, Postern, parts of Postern; and smtp-sink behind each. */
import {
  chmodSync,
  chownSync,
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { freePort } from '../ports.ts'
import { clamdCommand } from '../process/clamd.ts'
import { Postern } from '../process/postern.ts'
import { type RspamdPorts, rspamdCommand } from '../process/rspamd.ts'
import { Group } from './group.ts'

const clock = new SystemClock()
const START_MS_MAX = 15_000

/** Every peer delivers mail for this domain to its sink. */
export const DOMAIN = 'bench.test'

/** smtp-sink: the next hop. It prints a counter, which is read here. */
export class Sink {
  readonly port = freePort()
  readonly #group = new Group('sink')
  readonly #countFile: string

  constructor(directory: string) {
    this.#countFile = join(directory, `sink-${this.port}`)
  }

  async start(): Promise<void> {
    const out = openSync(this.#countFile, 'w')
    const drop = process.getuid?.() === 0 ? ['-u', 'nobody'] : []
    const child = Bun.spawn(
      [...this.#group.wrapper, 'smtp-sink', ...drop, '-c', `127.0.0.1:${this.port}`, '1024'],
      { cwd: '/', stdio: ['ignore', out, 'ignore'] },
    )
    closeSync(out)
    this.#group.adopt(child.pid)
    await greets(this.port)
  }

  cpuMs(): number {
    return this.#group.cpuMs()
  }

  /** Messages that it has taken. */
  count(): number {
    const file = openSync(this.#countFile, 'r')
    const { size } = fstatSync(file)
    const end = Buffer.alloc(Math.min(200, size))
    readSync(file, end, 0, end.length, size - end.length)
    closeSync(file)
    const counts = [...end.toString('latin1').matchAll(/mesg=(\d+)\s*[\r\n]/g)]
    return Number(counts.at(-1)?.[1] ?? 0)
  }

  /** True when it has taken `total`, false after `limitMs`. */
  async has(total: number, limitMs: number): Promise<boolean> {
    const deadlineMs = clock.monoMs() + limitMs
    while (this.count() < total) {
      if (clock.monoMs() > deadlineMs) return false
      await pause(clock, 4)
    }
    return true
  }

  async stop(): Promise<void> {
    await this.#group.end()
  }
}

/** A peer that runs. `sink` null: it accepts only. */
export type Peer = {
  readonly name: string
  readonly port: number
  readonly group: Group
  readonly sink: Sink | null
  readonly stop: () => Promise<void>
}

const SERVICES = `pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

/** Why Postfix cannot be measured here, or null. */
export function noPostfix(): string | null {
  if (Bun.which('postfix') === null) return 'the package postfix is missing'
  if (process.getuid?.() !== 0) return 'Postfix needs root to start'
  return null
}

type Settings = Readonly<Record<string, string>>

/** Beside a mail server. clamd has two signatures of its own: the data base of its makers is not fetched. */
export type Scanner = 'rspamd' | 'clamd'

/** In a mail it is found by clamd, and by nobody else. */
export const MARKER = 'POSTERN-BENCH-MARKER-7f3a91cc'

/**
 * Postfix with Rspamd as its milter, and clamd behind that when it is one of `scanners`, all in one
 * group: stock rules, without the network, and clamd gets every mail whole, as from Postern.
 */
export async function startMilterChain(
  directory: string,
  name: string,
  scanners: readonly Scanner[],
): Promise<Peer> {
  const [scanner, milter] = [freePort(), freePort()]
  const postfix = await startPostfix(directory, {
    smtpd_milters: `inet:127.0.0.1:${milter}`,
    // A scanner that does not answer is no clean mail here either.
    milter_default_action: 'tempfail',
  })
  const { group } = postfix
  const clamd = scanners.includes('clamd') ? await startClamd(directory, group) : null
  await startRspamd(directory, group, { scanner, milter, clamd })
  return { ...postfix, name }
}

/** Postern with the same scanners as engines, all in one group, beside its own inspectors. */
export async function startPosternEngines(
  directory: string,
  name: string,
  inspectors: string,
  scanners: readonly Scanner[],
): Promise<PosternPeer> {
  const postern = await startPostern(directory, name, inspectors)
  const engines: string[] = []
  if (scanners.includes('rspamd')) {
    const scanner = freePort()
    await startRspamd(directory, postern.group, { scanner, milter: null, clamd: null })
    engines.push(`rspamd rspamd://127.0.0.1:${scanner}`)
  }
  if (scanners.includes('clamd'))
    engines.push(`clamd clamd://127.0.0.1:${await startClamd(directory, postern.group)}`)
  await postern.node.set('engines.list', engines.join('\n'))
  return postern
}

async function startRspamd(directory: string, group: Group, ports: RspamdPorts): Promise<void> {
  const root = join(directory, `rspamd-${ports.scanner}`)
  mkdirSync(root, { mode: 0o755 })
  chmodSync(directory, 0o755)
  begin(group, root, await rspamdCommand(root, ports))
  await listens(ports.milter ?? ports.scanner)
}

/** Gives its port. */
async function startClamd(directory: string, group: Group): Promise<number> {
  const port = freePort()
  const root = join(directory, `clamd-${port}`)
  const signatures = { 'Bench.Marker': MARKER, 'Bench.Other': 'POSTERN-BENCH-OTHER-0c55d2aa' }
  begin(group, root, clamdCommand(root, port, signatures))
  await listens(port)
  return port
}

function begin(group: Group, root: string, command: readonly string[]): void {
  const child = Bun.spawn([...group.wrapper, ...command], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'ignore'],
  })
  group.adopt(child.pid)
}

/** Waits for somebody at a port of loopback. @throws when nobody comes */
async function listens(port: number): Promise<void> {
  const deadlineMs = clock.monoMs() + 4 * START_MS_MAX
  while (clock.monoMs() < deadlineMs) {
    const isUp = await Bun.connect({ hostname: '127.0.0.1', port, socket: { data() {} } }).then(
      (socket) => {
        socket.end()
        return true
      },
      () => false,
    )
    if (isUp) return
    await pause(clock, 100)
  }
  throw new Error(`nothing listens on port ${port}`)
}

/**
 * Postfix as Debian ships it, with its own directories on a port of loopback: every message is
 * synced before its 250, no limit is lifted, no DNS is asked.
 */
export async function startPostfix(directory: string, more: Settings = {}): Promise<Peer> {
  const sink = new Sink(directory)
  await sink.start()
  const group = new Group('postfix')
  const port = freePort()
  const root = join(directory, `postfix-${port}`)
  for (const name of ['', 'etc', 'spool', 'data', 'log']) {
    mkdirSync(join(root, name), { recursive: true })
    chmodSync(join(root, name), 0o755)
  }
  chmodSync(directory, 0o755)
  const uid = Number(await Bun.$`id -u postfix`.text())
  chownSync(join(root, 'data'), uid, -1)
  const settings = {
    compatibility_level: '3.6',
    queue_directory: join(root, 'spool'),
    data_directory: join(root, 'data'),
    maillog_file: join(root, 'log/mail.log'),
    maillog_file_prefixes: root,
    inet_interfaces: '127.0.0.1',
    inet_protocols: 'ipv4',
    myhostname: 'gateway.test',
    mydestination: '',
    local_recipient_maps: '',
    alias_maps: '',
    alias_database: '',
    mynetworks: '127.0.0.0/8',
    smtpd_relay_restrictions: 'permit_mynetworks, reject',
    relayhost: `[127.0.0.1]:${sink.port}`,
    disable_dns_lookups: 'yes',
    smtpd_peername_lookup: 'no',
    biff: 'no',
    message_size_limit: '52428800',
    ...more,
  }
  const lines = Object.entries(settings).map(([key, value]) => `${key} = ${value}\n`)
  writeFileSync(join(root, 'etc/main.cf'), lines.join(''))
  writeFileSync(join(root, 'etc/master.cf'), `127.0.0.1:${port} inet n - n - - smtpd\n${SERVICES}`)
  const postfix = async (word: string): Promise<number> =>
    await Bun.spawn([...group.wrapper, 'postfix', '-c', join(root, 'etc'), word], {
      stdio: ['ignore', 'ignore', 'ignore'],
    }).exited
  if ((await postfix('start')) !== 0) throw new Error('postfix does not start')
  await greets(port)
  group.adopt(Number(readFileSync(join(root, 'spool/pid/master.pid'), 'latin1')))
  const stop = async (): Promise<void> => {
    await postfix('stop')
    await group.end()
    await sink.stop()
  }
  return { name: 'postfix', port, group, sink, stop }
}

export type PosternPeer = Peer & { readonly node: Postern }

/** A node with an empty data directory. `inspectors` null: the first ones, as by default. */
export async function startPostern(
  directory: string,
  name: string,
  inspectors: string | null,
): Promise<PosternPeer> {
  const sink = new Sink(directory)
  await sink.start()
  const group = new Group('postern')
  const data = join(directory, `data-${sink.port}`)
  const node = await Postern.start({ data, wrapper: group.wrapper })
  group.adopt(node.pid)
  await node.addDomain(DOMAIN, `smtp://127.0.0.1:${sink.port}`)
  if (inspectors !== null) await node.set('inspect.inspectors', inspectors)
  const stop = async (): Promise<void> => {
    await node.stop()
    await group.end()
    await sink.stop()
  }
  return { name, port: node.smtpPort, group, sink, node, stop }
}

/** A part of Postern, or a receiver to compare with: test/bench/stages.ts says which there are. */
export async function startStage(directory: string, stage: string, relays: boolean): Promise<Peer> {
  const sink = relays ? new Sink(directory) : null
  await sink?.start()
  const group = new Group('stage')
  const port = freePort()
  const data = join(directory, `stage-${stage}-${port}`)
  mkdirSync(data)
  const log = openSync(`${data}.log`, 'w')
  const child = Bun.spawn(
    [
      ...group.wrapper,
      ...[process.execPath, join(import.meta.dir, 'stages.ts')],
      ...[stage, String(port), String(sink?.port ?? 0), data],
    ],
    { stdio: ['ignore', 'ignore', log] },
  )
  closeSync(log)
  group.adopt(child.pid)
  await greets(port)
  const stop = async (): Promise<void> => {
    await group.end()
    await sink?.stop()
  }
  return { name: stage, port, group, sink, stop }
}

/** Waits for a 220 on a port of loopback. @throws when none comes */
async function greets(port: number): Promise<void> {
  const deadlineMs = clock.monoMs() + START_MS_MAX
  while (clock.monoMs() < deadlineMs) {
    const greeted = await new Promise<boolean>((resolve) => {
      Bun.connect({
        hostname: '127.0.0.1',
        port,
        socket: {
          data: (socket, bytes) => {
            resolve(bytes.toString('latin1').startsWith('220'))
            socket.end('QUIT\r\n')
          },
          close: () => resolve(false),
        },
      }).catch(() => resolve(false))
    })
    if (greeted) return
    await pause(clock, 20)
  }
  throw new Error(`nothing greets on port ${port}`)
}
