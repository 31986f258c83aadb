/**
 * Client networks that ask for many recipients that nobody has: counted over an hour on all nodes
 * together, and refused for a while on all of them within about a second. In bounded memory; what
 * a node was told it keeps, also when who told it is gone.
 */
import type { Clock } from '../../base/clock.ts'
import type { Observer } from '../../base/observe.ts'
import type { Tally, Topic } from '../../base/tally.ts'
import type { Settings } from '../../config/schema.ts'
import { networkOf } from './throttle.ts'

/** Networks remembered at a time; the one longest unchanged is forgotten first (faults.md G10). */
const NETWORKS_MAX = 20_000
const BANS_MAX = 5_000
const HOUR_MS = 3_600_000
/** A node that was away hears this long of a ban that was lifted. */
const LIFTED_MS = 60_000
/** What is told of a ban may be so old; then it is told again. */
const TOLD_MS = 600_000
/** Two ends this close are one: the way between nodes takes a moment. */
const SAME_MS = 5_000

export type Ban = {
  /** `192.0.2.1` or an IPv6 /64. */
  readonly network: string
  readonly leftMs: number
}

type Standing = { readonly untilMono: number; toldMono: number }

export type BansDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly tally: Tally
}

export class Bans {
  readonly #deps: BansDeps
  readonly #failures: Topic
  readonly #told: Topic
  readonly #counts = new Map<string, { count: number; endsMono: number }>()
  readonly #bans = new Map<string, Standing>()

  constructor(deps: BansDeps) {
    this.#deps = deps
    this.#failures = deps.tally.topic('unknownRecipients')
    this.#told = deps.tally.topic('bans')
    // Seconds that are left of it; 0: it was lifted.
    this.#told.onHeard((key, seconds) => this.#heard(key, seconds))
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
    if (window.count + this.#failures.sum(network) < most) return false
    this.#ban(network, window.count + this.#failures.sum(network), settings)
    return true
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

  /** On all nodes; false: nothing to lift. Its count begins anew. */
  lift(network: string): boolean {
    if (this.#leftOf(network) === 0) return false
    this.#forget(network)
    this.#deps.observer.emit('client.unbanned', { client: network })
    return true
  }

  #ban(network: string, failures: number, settings: Settings): void {
    const { clock, observer } = this.#deps
    if (this.#leftOf(network) > 0) return
    const untilMono = clock.monoMs() + settings['connection.ban'] * 60_000
    const ban: Standing = { untilMono, toldMono: 0 }
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
    this.#told.tell(network, Math.ceil(leftMs / 1_000), Math.min(leftMs, HOUR_MS))
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

  #heard(network: string, seconds: number): void {
    if (seconds === 0) {
      if (this.#bans.has(network)) this.#forget(network)
      return
    }
    const untilMono = this.#deps.clock.monoMs() + seconds * 1_000
    const before = this.#bans.get(network)
    if (before !== undefined && untilMono - before.untilMono < SAME_MS) return
    // Told on: a node that starts later hears it although who said it first is gone.
    const ban: Standing = { untilMono, toldMono: 0 }
    keepLast(this.#bans, network, ban, BANS_MAX)
    this.#tell(network, ban)
  }

  #forget(network: string): void {
    this.#bans.delete(network)
    this.#counts.delete(network)
    this.#failures.tell(network, 0, LIFTED_MS)
    this.#told.tell(network, 0, LIFTED_MS)
  }
}

function keepLast<Value>(map: Map<string, Value>, key: string, value: Value, most: number): void {
  map.delete(key)
  map.set(key, value)
  const [oldest] = map.keys()
  if (map.size > most && oldest !== undefined) map.delete(oldest)
}
