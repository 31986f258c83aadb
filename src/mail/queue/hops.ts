/**
 * How much a next hop takes now, for all nodes together. The connections of the setting are shared
 * by the nodes that live; what one learns of a hop, the others are told. A hop that is down gets
 * one attempt at a time in the whole cluster: one node has the turn, tells so while it has, and
 * leaves it to the next when it has nothing more or had it for a minute.
 */
import type { Clock, Timer } from '../../base/clock.ts'
import type { Tally, Topic } from '../../base/tally.ts'

/** Of a hop about which nothing is known. */
const LIMIT_FIRST = 5
const LIMIT_MAX = 10_000
/** What was learnt of a hop is remembered, here and elsewhere. */
const LEVEL_MS = 60_000
/** Who has the turn says so again before this is half over. */
const TURN_MS = 30_000
/** Then it is another's turn, when somebody waits. */
const TURN_MS_MAX = 60_000
/** Who waits for the turn of another looks so often whether that one still lives. */
const LOOK_MS = 5_000
/** Nodes that find the turn free take it one after the other, so that each hears the one before. */
const STAGGER_MS = 1_500
const WAIT_MS_MAX = 15_000

/** What is known of one hop while something waits for it or runs. */
export type Hop = {
  readonly key: string
  limit: number
  isDown: boolean
  /** Monotonic ms since when this node has the turn; null: it has not. */
  turnMono: number | null
  /** Since when nobody else is known to have it. */
  freeMono: number | null
  /** Turns of others that are to come before the next one of this node. */
  owes: number
  timer: Timer | null
  renewal: Timer | null
}

export type HopsDeps = {
  readonly clock: Clock
  readonly tally: Tally
  /** The setting `deliver.connections`. */
  readonly most: () => number
  /** More may begin for this hop than was said last. */
  readonly freed: (key: string) => void
}

export class Hops {
  readonly #deps: HopsDeps
  readonly #levels: Topic
  readonly #turns: Topic
  readonly #hops = new Map<string, Hop>()

  constructor(deps: HopsDeps) {
    this.#deps = deps
    this.#levels = deps.tally.topic('hops')
    this.#turns = deps.tally.topic('turns')
    this.#levels.onHeard((key, value) => this.#heard(key, value))
    this.#turns.onHeard((key) => this.#look(key))
  }

  /** One more attempt may begin, while `active` run here. */
  mayBegin(key: string, active: number): boolean {
    const hop = this.#of(key)
    const { tally, most } = this.#deps
    const share = Math.max(1, Math.floor(most() / tally.living()))
    if (active >= Math.min(hop.limit, share)) return false
    return !hop.isDown || (active === 0 && this.#hasTurn(hop))
  }

  begun(key: string): void {
    const hop = this.#of(key)
    if (hop.isDown) this.#tellTurn(hop)
  }

  /**
   * An attempt has ended. `reached`: the hop answered; null: it was not asked. Twice the
   * connections after a success, half after a failure: one that is back has its full share within
   * a few mails.
   */
  ended(key: string, reached: boolean | null): void {
    const hop = this.#of(key)
    hop.renewal?.cancel()
    if (reached === null) return
    if (reached) {
      hop.limit = Math.min(hop.limit * 2, LIMIT_MAX)
      if (hop.isDown) this.#up(hop)
      return
    }
    hop.limit = Math.max(1, Math.floor(hop.limit / 2))
    hop.isDown = hop.limit === 1
    this.#levels.tell(key, hop.limit, LEVEL_MS)
  }

  /** Nothing more waits for it here. */
  forget(key: string): void {
    const hop = this.#hops.get(key)
    if (hop === undefined) return
    hop.timer?.cancel()
    hop.renewal?.cancel()
    this.#leaveTurn(hop)
    this.#hops.delete(key)
  }

  #of(key: string): Hop {
    const known = this.#hops.get(key)
    if (known !== undefined) return known
    const level = this.#levels.least(key)
    const hop: Hop = {
      key,
      limit: Math.max(1, Math.min(level ?? LIMIT_FIRST, LIMIT_FIRST)),
      isDown: level === 1,
      turnMono: null,
      freeMono: null,
      owes: 0,
      timer: null,
      renewal: null,
    }
    this.#hops.set(key, hop)
    return hop
  }

  // ---- what others say ----

  #heard(key: string, level: number): void {
    const hop = this.#hops.get(key)
    if (hop === undefined) return
    if (level <= 1) {
      hop.limit = 1
      hop.isDown = true
    } else if (hop.isDown) this.#up(hop)
    else hop.limit = Math.min(hop.limit, Math.floor(level))
  }

  /** It answers again: everybody may. */
  #up(hop: Hop): void {
    hop.isDown = false
    hop.limit = Math.max(2, hop.limit)
    this.#levels.tell(hop.key, hop.limit, LEVEL_MS)
    this.#leaveTurn(hop)
    this.#look(hop.key)
  }

  // ---- whose turn it is ----

  #hasTurn(hop: Hop): boolean {
    const { clock, tally } = this.#deps
    const nowMono = clock.monoMs()
    const othersMs = this.#turns.restMs(hop.key)
    if (hop.turnMono !== null) {
      const isOver = tally.living() > 1 && nowMono - hop.turnMono >= TURN_MS_MAX
      // Two that took it at the same moment: the first in rank keeps it.
      if (!isOver && (othersMs === 0 || tally.place(hop.key) === 0)) return true
      this.#leaveTurn(hop)
      hop.owes = tally.living() - 1
    }
    if (othersMs > 0) {
      if (hop.freeMono !== null) hop.owes = Math.max(0, hop.owes - 1)
      hop.freeMono = null
      this.#lookIn(hop, Math.min(othersMs, LOOK_MS))
      return false
    }
    hop.freeMono ??= nowMono
    const before = tally.place(hop.key) + hop.owes * tally.living()
    const waitMs = hop.freeMono + Math.min(before * STAGGER_MS, WAIT_MS_MAX) - nowMono
    if (waitMs > 0) {
      this.#lookIn(hop, waitMs)
      return false
    }
    hop.turnMono = nowMono
    return true
  }

  #tellTurn(hop: Hop): void {
    this.#turns.tell(hop.key, 1, TURN_MS)
    hop.renewal?.cancel()
    hop.renewal = this.#deps.clock.after(TURN_MS / 2, () => this.#tellTurn(hop))
  }

  #leaveTurn(hop: Hop): void {
    if (hop.turnMono === null) return
    hop.turnMono = null
    hop.freeMono = null
    this.#turns.tell(hop.key, 1, 0)
  }

  #look(key: string): void {
    if (this.#hops.has(key)) this.#deps.freed(key)
  }

  #lookIn(hop: Hop, waitMs: number): void {
    hop.timer?.cancel()
    hop.timer = this.#deps.clock.after(waitMs, () => this.#look(hop.key))
  }
}
