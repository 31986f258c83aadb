/**
 * Client networks that ask for many recipients that nobody has: counted over an hour on all nodes
 * together, and refused for a while on all of them within about a second. In bounded memory; what
 * a node was told it keeps, also when who told it is gone.
 *
 * That one was lifted is a shared row: it reaches also who was away then, and outlives a restart.
 * Each ban has the stamp of its making and travels with it; the stamp of a lift is that of its ban or
 * a later one. So a ban that comes back from a node that was away is known to be over, and one that
 * was made since is not.
 */
import type { Clock } from '../../base/clock.ts'
import type { Observer } from '../../base/observe.ts'
import type { Tally, Topic } from '../../base/tally.ts'
import { SETTINGS, type Settings } from '../../config/schema.ts'
import type { Stamp } from '../../config/stamp.ts'
import type { SharedRows } from '../../store/shared.ts'
import { networkOf } from './throttle.ts'

/** Networks remembered at a time; the one longest unchanged is forgotten first (faults.md G10). */
const NETWORKS_MAX = 20_000
const BANS_MAX = 5_000
const HOUR_MS = 3_600_000
/** A node that was away hears this long that a count began anew. */
const LIFTED_MS = 60_000
/** What is told of a ban may be so old; then it is told again. */
const TOLD_MS = 600_000
/** One owned row a network; its version is the stamp of the lift. */
const LIFT_KIND = 'ban-lift'
/** A lift is remembered as long as any ban may last that it is of. */
const BAN_MS_MAX = SETTINGS['connection.ban'].max * 60_000
/** Of a ban, as nodes tell it: network and stamp. */
const TOLD = /^(\S+) (\d{1,16})$/

export type Ban = {
  /** `192.0.2.1` or an IPv6 /64. */
  readonly network: string
  readonly leftMs: number
}

type Standing = { readonly stamp: Stamp; readonly untilMono: number; toldMono: number }

export type BansDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly tally: Tally
  readonly rows: Pick<SharedRows, 'stamps' | 'list' | 'owned' | 'put' | 'onChange'>
}

export class Bans {
  readonly #deps: BansDeps
  readonly #failures: Topic
  readonly #told: Topic
  readonly #counts = new Map<string, { count: number; endsMono: number }>()
  readonly #bans = new Map<string, Standing>()
  /** By network, when it was lifted last. */
  readonly #lifts = new Map<string, Stamp>()
  /** By network, of what the others counted: so much was before it was lifted. */
  readonly #forgiven = new Map<string, number>()

  /** @throws StoreError */
  constructor(deps: BansDeps) {
    this.#deps = deps
    this.#failures = deps.tally.topic('unknownRecipients')
    // A count that began anew elsewhere is not to be forgiven once more.
    this.#failures.onHeard((network) => this.#countedElsewhere(network))
    this.#told = deps.tally.topic('banned')
    // Seconds that are left of it; 0: it is not told any more.
    this.#told.onHeard((key, seconds) => this.#heard(key, seconds))
    for (const { key, state } of deps.rows.list(LIFT_KIND))
      if (state.shape === 'owned') keepLast(this.#lifts, key, state.version[0], BANS_MAX)
    deps.rows.onChange(LIFT_KIND, ({ keys }) => {
      for (const key of keys) this.#lifted(key)
    })
  }

  /** A recipient that nobody has. Only of clients that are counted: true when it is refused now. */
  failed(ip: string, settings: Settings): boolean {
    const most = settings['connection.failures']
    if (most === 0) return false
    const network = networkOf(ip)
    const nowMono = this.#deps.clock.monoMs()
    const before = this.#counts.get(network)
    const isOver = before === undefined || nowMono >= before.endsMono
    const window = isOver ? { count: 0, endsMono: nowMono + HOUR_MS } : before
    window.count += 1
    keepLast(this.#counts, network, window, NETWORKS_MAX)
    this.#failures.tell(network, window.count, window.endsMono - nowMono)
    const failures = window.count + this.#countedElsewhere(network)
    if (failures < most) return false
    this.#ban(network, failures, settings)
    return true
  }

  /** Since it was lifted, also by nodes that have not heard of that yet. */
  #countedElsewhere(network: string): number {
    const sum = this.#failures.sum(network)
    const forgiven = Math.min(this.#forgiven.get(network) ?? 0, sum)
    if (forgiven === 0) this.#forgiven.delete(network)
    else this.#forgiven.set(network, forgiven)
    return sum - forgiven
  }

  isBanned(ip: string): boolean {
    if (this.#bans.size === 0) return false
    return this.#leftOf(networkOf(ip)) > 0
  }

  /** The one that lasts longest first. */
  list(): readonly Ban[] {
    return [...this.#bans.keys()]
      .map((network) => ({ network, leftMs: this.#leftOf(network) }))
      .filter(({ leftMs }) => leftMs > 0)
      .sort((one, other) => other.leftMs - one.leftMs || (one.network < other.network ? -1 : 1))
  }

  /**
   * On all nodes, also on those that hear of it later; false: nothing to lift. Its count begins
   * anew. @throws StoreError, and it stays refused
   */
  lift(author: string, network: string): boolean {
    const ban = this.#bans.get(network)
    if (ban === undefined || this.#leftOf(network) === 0) return false
    const { rows, clock, observer } = this.#deps
    const before = rows.owned(LIFT_KIND, network)?.version[0] ?? 0
    // A clock that is behind must not make it older than what it lifts.
    const stamp = Math.max(rows.stamps.next(), ban.stamp, before + 1)
    rows.put(LIFT_KIND, network, [stamp, 0], '{}', author, clock.wallMs() + BAN_MS_MAX)
    observer.emit('client.unbanned', { client: network })
    return true
  }

  #ban(network: string, failures: number, settings: Settings): void {
    const { clock, observer, rows } = this.#deps
    if (this.#leftOf(network) > 0) return
    const untilMono = clock.monoMs() + settings['connection.ban'] * 60_000
    const ban: Standing = { stamp: rows.stamps.next(), untilMono, toldMono: 0 }
    keepLast(this.#bans, network, ban, BANS_MAX)
    this.#tell(network, ban)
    observer.emit('client.banned', {
      client: network,
      failures,
      minutes: settings['connection.ban'],
    })
  }

  /** Times travel as what remains of them; the tally forgets after an hour what nobody repeats. */
  #tell(network: string, ban: Standing): void {
    const nowMono = this.#deps.clock.monoMs()
    const leftMs = ban.untilMono - nowMono
    ban.toldMono = nowMono
    this.#told.tell(toldOf(network, ban), Math.ceil(leftMs / 1_000), Math.min(leftMs, HOUR_MS))
  }

  #leftOf(network: string): number {
    const ban = this.#bans.get(network)
    if (ban === undefined) return 0
    const nowMono = this.#deps.clock.monoMs()
    const leftMs = ban.untilMono - nowMono
    if (leftMs <= 0) this.#bans.delete(network)
    else if (nowMono - ban.toldMono >= TOLD_MS) this.#tell(network, ban)
    return Math.max(0, leftMs)
  }

  #heard(told: string, seconds: number): void {
    const [, network = '', digits = ''] = TOLD.exec(told) ?? []
    const stamp = Number(digits)
    if (network === '' || seconds === 0 || stamp <= (this.#lifts.get(network) ?? 0)) return
    const before = this.#bans.get(network)
    if (before !== undefined && before.stamp >= stamp) return
    // Told on: a node that starts later hears it although who said it first is gone.
    const untilMono = this.#deps.clock.monoMs() + seconds * 1_000
    const ban: Standing = { stamp, untilMono, toldMono: 0 }
    keepLast(this.#bans, network, ban, BANS_MAX)
    this.#tell(network, ban)
  }

  /** What its row says, whoever wrote it. A ban that was made after it stands. */
  #lifted(network: string): void {
    const [stamp] = this.#deps.rows.owned(LIFT_KIND, network)?.version ?? [0]
    keepLast(this.#lifts, network, stamp, BANS_MAX)
    const ban = this.#bans.get(network)
    if (ban !== undefined && ban.stamp > stamp) return
    if (ban !== undefined) this.#told.tell(toldOf(network, ban), 0, LIFTED_MS)
    this.#bans.delete(network)
    this.#counts.delete(network)
    keepLast(this.#forgiven, network, this.#failures.sum(network), BANS_MAX)
    this.#failures.tell(network, 0, LIFTED_MS)
  }
}

function toldOf(network: string, { stamp }: Standing): string {
  return `${network} ${stamp}`
}

function keepLast<Value>(map: Map<string, Value>, key: string, value: Value, most: number): void {
  map.delete(key)
  map.set(key, value)
  const [oldest] = map.keys()
  if (map.size > most && oldest !== undefined) map.delete(oldest)
}
