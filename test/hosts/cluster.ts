/** Real nodes on hosts of a network, joined to one cluster, as a test sees and disturbs them. */
import { test } from 'bun:test'
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { PATIENCE_MS } from '../process/counts.ts'
import { type Ledger, Load } from '../process/ledger.ts'
import { Postern } from '../process/postern.ts'
import { Wire } from '../process/wire.ts'
import { hostLacks, needs, ROOT } from '../real.ts'
import { canMakeNetworks, type Net } from './net.ts'

export const clock = new SystemClock()

/** A `describe` for suites on hosts: skipped by name where there can be none. */
export const onHosts = canMakeNetworks()
  ? needs('root', 'iproute2', 'nftables', 'tcpdump', 'faketime', 'curl')
  : hostLacks('network namespaces')

/** As GET /api/v1/cluster gives it, as far as the tests look. */
export type View = {
  readonly clusterId: string
  readonly digest: string
  readonly repairs: number
  readonly parked: number
  readonly clockTrouble: string | null
  readonly alarms: readonly { readonly kind: string; readonly message: string }[]
  readonly nodes: readonly {
    readonly id: string
    readonly name: string
    readonly here: boolean
    readonly state: string
    readonly lagRows: number
  }[]
  readonly events: readonly { readonly name: string; readonly what: string }[]
  readonly links: readonly {
    readonly from: string
    readonly to: string
    readonly tcp: boolean | null
    readonly udp: boolean | null
    readonly trouble: string | null
  }[]
}

export type Conflict = {
  readonly key: string
  readonly sides: readonly { readonly id: string; readonly value: string | null }[]
}

export type HostOptions = {
  readonly data?: string
  readonly environment?: Readonly<Record<string, string>>
  /** Of `serve`, beside its addresses and name. */
  readonly options?: readonly string[]
  /** Of another build. */
  readonly program?: string
  /** How long it may take to be ready. */
  readonly readyMs?: number
}

/** The ports of mail, the web and peers on every host. */
export const SMTP_PORT = 25
export const WEB_PORT = 8_443
export const PEER_PORT = 7_946

/** How long a host may take to answer a client. */
const SEND_MS_MAX = 10_000
/** None of these asks a name server, which these networks do not have. */
export const NAMELESS_INSPECTORS = 'gtube,eicar,headers,attachments'

/** Asks again and again until it holds; false after `timeoutMs`. A failure to ask is a no. */
export async function until(
  what: () => boolean | Promise<boolean>,
  timeoutMs: number,
  everyMs = 50,
): Promise<boolean> {
  const deadlineMono = clock.monoMs() + timeoutMs
  for (;;) {
    try {
      if (await what()) return true
    } catch {
      // It does not answer now; the next time it may.
    }
    if (clock.monoMs() > deadlineMono) return false
    await pause(clock, everyMs)
  }
}

/** Ms until it holds; infinity when that takes longer than `timeoutMs`. */
export async function msUntil(
  what: () => boolean | Promise<boolean>,
  timeoutMs: number,
  everyMs = 20,
): Promise<number> {
  const beganMono = clock.monoMs()
  const holds = await until(what, timeoutMs, everyMs)
  return holds ? clock.monoMs() - beganMono : Number.POSITIVE_INFINITY
}

export class HostCluster {
  readonly net: Net
  /** By host. */
  readonly nodes = new Map<number, Postern>()
  /** The directories of all nodes. */
  readonly place = mkdtempSync(join(tmpdir(), 'postern-hosts-'))
  readonly #mounts: string[] = []

  /** Without nodes; see `begin` and `join`. */
  constructor(net: Net) {
    this.net = net
  }

  /** The first host begins a cluster, the others join it at the same time. */
  static async start(
    net: Net,
    hosts: readonly number[],
    optionsOf: (host: number) => HostOptions = () => ({}),
  ): Promise<HostCluster> {
    const cluster = new HostCluster(net)
    const [first = 1, ...others] = hosts
    try {
      await cluster.begin(first, optionsOf(first))
      const token = others.length > 0 ? await cluster.invite(first, others.length) : ''
      await Promise.all(others.map((host) => cluster.join(host, token, optionsOf(host))))
      const isWhole = await until(() => cluster.agree(hosts), 20_000)
      if (!isWhole) throw new Error(`no cluster: ${JSON.stringify(await cluster.views(hosts))}`)
    } catch (error) {
      await cluster.dispose()
      throw error
    }
    return cluster
  }

  get hosts(): readonly number[] {
    return [...this.nodes.keys()]
  }

  node(host: number): Postern {
    const node = this.nodes.get(host)
    if (node === undefined) throw new Error(`host ${host} has no node`)
    return node
  }

  dataOf(host: number): string {
    return join(this.place, `mx${host}`)
  }

  /** A node that is a cluster of one. */
  async begin(host: number, given: HostOptions = {}): Promise<Postern> {
    const { data = this.dataOf(host), environment, options = [], program, readyMs } = given
    const isFresh = !existsSync(data)
    mkdirSync(data, { recursive: true, mode: 0o700 })
    const namespace = ['ip', 'netns', 'exec', this.net.namespace(host)]
    const node = await Postern.start({
      data,
      wrapper: namespace,
      ...(program === undefined ? {} : { program }),
      ...(readyMs === undefined ? {} : { readyMs }),
      options: [
        ...['--smtp', `0.0.0.0:${SMTP_PORT}`, '--web', `https://0.0.0.0:${WEB_PORT}`],
        ...['--peer', `0.0.0.0:${PEER_PORT}`, '--name', `mx${host}`, ...options],
      ],
      ...(environment === undefined ? {} : { environment }),
    })
    this.nodes.set(host, node)
    if (isFresh && program === undefined && !options.includes('--join'))
      await this.#withoutNames(host)
    return node
  }

  /** Without a name server, what asks one would answer 451 to every mail. */
  async #withoutNames(host: number): Promise<void> {
    await this.set(host, 'inspect.inspectors', NAMELESS_INSPECTORS)
    await this.set(host, 'connection.names', 'off')
  }

  join(host: number, token: string, given: HostOptions = {}): Promise<Postern> {
    return this.begin(host, { ...given, options: ['--join', token, ...(given.options ?? [])] })
  }

  /** A token of that host. */
  async invite(host: number, uses = 1): Promise<string> {
    const body = JSON.stringify({ uses })
    const path = '/api/v1/invitations'
    return (await this.node(host).api<{ token: string }>(path, { method: 'POST', body })).token
  }

  view(host: number): Promise<View> {
    return this.node(host).api('/api/v1/cluster')
  }

  views(hosts: readonly number[] = this.hosts): Promise<readonly View[]> {
    return Promise.all(hosts.map((host) => this.view(host)))
  }

  /** What one node says of another: `alive`, `suspect`, `dead`… */
  async stateOf(host: number, seenFrom: number): Promise<string> {
    const { nodes } = await this.view(seenFrom)
    return nodes.find(({ name }) => name === `mx${host}`)?.state ?? 'unknown'
  }

  async idOf(host: number): Promise<string> {
    return (await this.node(host).api<{ node: string }>('/api/v1/status')).node
  }

  /** Whether these nodes have the same rows, and take each other for alive. */
  async agree(hosts: readonly number[] = this.hosts): Promise<boolean> {
    const views = await this.views(hosts)
    const names = hosts.map((host) => `mx${host}`)
    const lives = ({ nodes }: View) =>
      names.every((name) => nodes.some((one) => one.name === name && one.state === 'alive'))
    return sameDigests(views) && views.every(lives)
  }

  async set(host: number, key: string, value: unknown): Promise<void> {
    await this.node(host).setAs(key, value)
  }

  async get(host: number, key: string): Promise<unknown> {
    return (await this.node(host).api<{ value: unknown }>(`/api/v1/settings/${key}`)).value
  }

  /** Ms until a setting has this value on all of `hosts`. */
  msUntilSet(
    hosts: readonly number[],
    key: string,
    value: unknown,
    timeoutMs = 20_000,
  ): Promise<number> {
    return msUntil(
      async () =>
        (await Promise.all(hosts.map((host) => this.get(host, key)))).every((one) => one === value),
      timeoutMs,
      5,
    )
  }

  /** Sends mails to a host over one connection, for at most 10 s. */
  async send(host: number, domain: string, seed: number, mails: number): Promise<Ledger> {
    const load = new Load({
      host: this.net.address(host),
      port: SMTP_PORT,
      domain,
      connections: 1,
      seed,
      sizes: [4_096],
      mails,
      replyMs: SEND_MS_MAX,
    })
    await Promise.race([load.finished(), pause(clock, SEND_MS_MAX)])
    await load.stop()
    return load.ledger
  }

  async conflicts(host: number): Promise<readonly Conflict[]> {
    return (await this.node(host).api<{ rows: readonly Conflict[] }>('/api/v1/conflicts')).rows
  }

  /** A wall clock of its own for a host, from its start on; `setClock` moves it. */
  ownClock(host: number): Readonly<Record<string, string>> {
    const file = this.#clockFile(host)
    if (!existsSync(file)) writeFileSync(file, '+0\n')
    return fakeClock(file)
  }

  /** `+1h`, `-1h`, `+0`: the wall clock of a host less the true one. Monotonic time stays true. */
  setClock(host: number, offset: string): void {
    writeFileSync(this.#clockFile(host), `${offset}\n`)
  }

  #clockFile(host: number): string {
    return join(this.place, `mx${host}.clock`)
  }

  /** A data directory on a disk of its own, of `bytes`. */
  async smallDisk(host: number, bytes: number): Promise<string> {
    const disk = join(this.place, `mx${host}.disk`)
    mkdirSync(disk)
    await Bun.$`mount -t tmpfs -o size=${bytes} tmpfs ${disk}`.quiet()
    this.#mounts.push(disk)
    return join(disk, 'data')
  }

  /** Ends all nodes and removes their directories. */
  async dispose(): Promise<void> {
    // A stopped process dies of SIGKILL as well.
    await Promise.all([...this.nodes.values()].map((node) => node.dispose()))
    for (const mount of this.#mounts) await Bun.$`umount ${mount}`.quiet().nothrow()
    if (process.env['POSTERN_KEEP'] === undefined)
      rmSync(this.place, { recursive: true, force: true })
  }
}

/** Tests with a cluster each, all at the same time: they wait more than they work. */
export function promises(net: Net) {
  return (
    name: string,
    hosts: readonly number[],
    run: (cluster: HostCluster, hosts: readonly number[]) => Promise<void>,
  ) =>
    test.concurrent(
      name,
      async () => {
        const cluster = await HostCluster.start(net, hosts)
        try {
          await run(cluster, hosts)
        } finally {
          await cluster.dispose()
        }
      },
      PATIENCE_MS,
    )
}

export function sameDigests(views: readonly View[]): boolean {
  return new Set(views.map(({ digest }) => digest)).size === 1 && views[0]?.digest !== ''
}

/** Sends a mail that every node holds. */
export async function holdOne(host: string, recipient: string, subject = ''): Promise<void> {
  const mail = readFileSync(join(ROOT, 'src/cli/demo/mails/gtube.eml'), 'latin1')
  const wire = await Wire.connect({ host, port: SMTP_PORT })
  const replies = [await wire.reply()]
  for (const line of [
    'EHLO a.example',
    'MAIL FROM:<a@a.example>',
    `RCPT TO:<${recipient}>`,
    'DATA',
    `${mail.replace(/^Subject: /m, `$&${subject} `).replace(/\r?\n/g, '\r\n')}\r\n.`,
  ]) {
    wire.send(`${line}\r\n`)
    replies.push(await wire.reply())
  }
  wire.drop()
  if (replies.at(-1)?.code !== 250) throw new Error(JSON.stringify(replies))
}

/** The environment of a process whose wall clock is in `file`, as libfaketime reads it. */
function fakeClock(file: string): Readonly<Record<string, string>> {
  const [library = ''] = [...new Bun.Glob('lib/*/faketime/libfaketime.so.1').scanSync('/usr')]
  return {
    LD_PRELOAD: join('/usr', library),
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: '1',
    // Timers would run faster too.
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
  }
}

/** Takes all the room there is where `file` is. */
export function fillDisk(file: string): void {
  const piece = Buffer.alloc(65_536)
  try {
    for (;;) appendFileSync(file, piece)
  } catch {
    // Full.
  }
}
