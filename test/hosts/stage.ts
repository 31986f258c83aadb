/**
 * One history of the failure matrix on real hosts (design: mail.md, The failure matrix is a test):
 * a cluster, a next hop that waits for a word before it takes a domain's mail, and a ledger of
 * every mail. Long times are divided by the scale that the table prints.
 */
import { pause } from '../../src/base/clock.ts'
import { Ledger, Load, settleAccount } from '../process/ledger.ts'
import { type Arrival, Sink } from '../process/sink.ts'
import { clock, HostCluster, type HostOptions, SMTP_PORT, until } from './cluster.ts'
import type { Net } from './net.ts'

/** How much shorter the long times of adoption are here. */
export const TIME_SCALE = 20
/** Clusters that run at the same time: hosts share the cores of one machine. */
const STAGES_MAX = 3

/** What the table says of one history. */
export type Told = {
  readonly name: string
  readonly accepted: number
  readonly delivered: number
  readonly lost: number
  readonly duplicated: number
  /** What the nodes count as possible duplicates: at least as many. */
  readonly counted: number
  /** From the fault to the first mail that another node delivered; null: nobody had to. */
  readonly adoptS: number | null
}

/** Where all mail of a run ends. A domain is closed until it is opened: its mail waits in queues. */
export class Backend {
  readonly sink: Sink
  readonly #open = new Set<string>()
  readonly #dots = new Map<
    string,
    (arrival: Arrival) => { reply: string | null; waitMs?: number }
  >()

  constructor(net: Net) {
    const domainOf = (address: string) => address.slice(address.indexOf('@') + 1)
    this.sink = new Sink(
      {
        recipient: (address) =>
          this.#open.has(domainOf(address)) ? '250 2.1.5 Ok' : '451 4.3.0 Not yet',
        dot: (arrival) =>
          this.#dots.get(domainOf(arrival.recipients[0]?.address ?? ''))?.(arrival) ?? {
            reply: '250 2.0.0 Kept',
          },
      },
      0,
      clock,
      net.outside,
    )
  }

  open(domain: string): void {
    this.#open.add(domain)
  }

  close(domain: string): void {
    this.#open.delete(domain)
  }

  /** What happens at the final dot of a mail for this domain. */
  atDot(
    domain: string,
    act: (arrival: Arrival) => { reply: string | null; waitMs?: number },
  ): void {
    this.#dots.set(domain, act)
  }
}

let running = 0
const waiting: (() => void)[] = []

/** Runs `act` when there is room for another cluster. */
export async function inTurn<Result>(act: () => Promise<Result>): Promise<Result> {
  while (running >= STAGES_MAX) await new Promise<void>((resolve) => waiting.push(resolve))
  running += 1
  try {
    return await act()
  } finally {
    running -= 1
    waiting.shift()?.()
  }
}

export class Stage {
  readonly cluster: HostCluster
  readonly net: Net
  readonly backend: Backend
  readonly domain: string
  readonly ledger = new Ledger()
  #faultMono = 0
  #seed: number

  private constructor(
    cluster: HostCluster,
    net: Net,
    backend: Backend,
    domain: string,
    seed: number,
  ) {
    this.cluster = cluster
    this.net = net
    this.backend = backend
    this.domain = domain
    this.#seed = seed * 1_000
  }

  /** A cluster of these hosts, that delivers to the closed domain of this history. */
  static async set(
    net: Net,
    backend: Backend,
    hosts: readonly number[],
    optionsOf: (host: number) => HostOptions = () => ({}),
  ): Promise<Stage> {
    const scaled = (host: number): HostOptions => {
      const given = optionsOf(host)
      return {
        ...given,
        options: ['--time-scale', String(TIME_SCALE), ...(given.options ?? [])],
      }
    }
    const cluster = await HostCluster.start(net, hosts, scaled)
    const [first = 1] = hosts
    const domain = `m${first}.example`
    const stage = new Stage(cluster, net, backend, domain, first)
    await cluster.node(first).addDomain(domain, backend.sink.nextHop)
    for (const [key, value] of [
      ['limits.exempt', [`${net.outside}/32`]],
      ['queue.first', 0.3],
      ['queue.longest', 1],
      ['queue.inDoubt', 1],
    ] as const) {
      await cluster.set(first, key, value)
    }
    const isOne = await until(() => cluster.agree(hosts), 30_000)
    const takes = await until(() => stage.#copiesFlow(first), 30_000)
    if (!isOne || !takes) throw new Error(`the cluster does not stand: ${isOne} ${takes}`)
    return stage
  }

  /** Mails that it got 250 for have a second copy from now on. */
  async #copiesFlow(host: number): Promise<boolean> {
    const before = await this.cluster.node(host).metric('postern_copies_total')
    await this.send(host, 1)
    return (await this.cluster.node(host).metric('postern_copies_total')) > before
  }

  load(
    host: number,
    options: { mails?: number; connections?: number; perSecond?: number } = {},
  ): Load {
    this.#seed += 1
    return new Load(
      {
        host: this.net.address(host),
        port: SMTP_PORT,
        domain: this.domain,
        connections: options.connections ?? 2,
        seed: this.#seed,
        sizes: [2_000, 20_000],
        ...(options.mails === undefined ? {} : { mails: options.mails }),
        ...(options.perSecond === undefined ? {} : { perSecond: options.perSecond }),
        replyMs: 20_000,
      },
      this.ledger,
    )
  }

  /** Sends so many mails, all of which are answered. */
  async send(host: number, mails: number): Promise<void> {
    await this.load(host, { mails }).finished()
  }

  /** The fault happens now: what the time to adopt is counted from. */
  fault(): void {
    this.#faultMono = clock.monoMs()
  }

  /** The next hop takes mail from here on. */
  open(): void {
    this.backend.open(this.domain)
  }

  /** Every mail that got 250 has arrived. */
  delivered(timeoutMs = 120_000): Promise<boolean> {
    return this.backend.sink.until(() => this.account().lost.length === 0, timeoutMs)
  }

  /** So long after the last arrival nothing more comes: what would be a duplicate would have. */
  async settled(timeoutMs = 60_000): Promise<boolean> {
    const empty = async () =>
      (
        await Promise.all(
          this.cluster.hosts.map(async (host) => {
            const node = this.cluster.node(host)
            return !node.running || (await node.status()).queue.messages === 0
          }),
        )
      ).every(Boolean)
    const isEmpty = await until(empty, timeoutMs)
    await pause(clock, 2_000)
    return isEmpty
  }

  account() {
    return settleAccount(this.ledger, this.backend.sink.arrivals)
  }

  async told(name: string): Promise<Told> {
    const account = this.account()
    const { arrivals } = this.backend.sink
    const after = arrivals.find(
      ({ dotMs, recipients }) =>
        dotMs >= this.#faultMono && recipients[0]?.address.endsWith(`@${this.domain}`) === true,
    )
    const counts = await Promise.all(
      this.cluster.hosts.map(async (host) => {
        const node = this.cluster.node(host)
        return node.running ? await node.metric('postern_possible_duplicates_total') : 0
      }),
    )
    return {
      name,
      accepted: account.acked,
      delivered: account.acked - account.lost.length,
      lost: account.lost.length,
      duplicated: account.duplicates.length,
      counted: counts.reduce((sum, count) => sum + count, 0),
      adoptS:
        this.#faultMono === 0 || after === undefined
          ? null
          : Math.round((after.dotMs - this.#faultMono) / 100) / 10,
    }
  }
}

export function tableOf(rows: readonly Told[]): string {
  const head = 'history | accepted | delivered | lost | duplicated (counted) | s to adopt'
  return [
    `failure matrix, times divided by ${TIME_SCALE}`,
    head,
    ...rows.map(({ name, accepted, delivered, lost, duplicated, counted, adoptS }) =>
      [name, accepted, delivered, lost, `${duplicated} (${counted})`, adoptS ?? '-'].join(' | '),
    ),
  ].join('\n')
}
