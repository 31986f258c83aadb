/**
 * Hybrid logical time: one number that orders writes of all nodes as their clocks do, and never
 * goes back behind what was seen (Kulkarni et al., Logical Physical Clocks, 2014).
 */
import type { Clock } from '../base/clock.ts'

/** (ms since 2025-01-01 UTC) * 4096 + count: a safe integer until 2094. */
export type Stamp = number

const EPOCH_MS = Date.UTC(2025, 0, 1)
const COUNTS = 4_096
/** A stamp further ahead of the wall clock than this is not believed (design: cluster.md, Clock). */
export const AHEAD_MS_MAX = 60_000

export function stampOf(wallMs: number): Stamp {
  return Math.max(0, Math.floor(wallMs) - EPOCH_MS) * COUNTS
}

/** Wall time in ms at which the stamp was made, as far as the clock of its node was right. */
export function wallMsOf(stamp: Stamp): number {
  return Math.floor(stamp / COUNTS) + EPOCH_MS
}

export class StampClock {
  readonly #clock: Clock
  #last: Stamp = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /**
   * Later than every stamp given or observed before, also when the clock was set back a little.
   * One that was given while the clock was far ahead is let go: nobody believes what follows it.
   */
  next(): Stamp {
    if (this.isAhead(this.#last)) this.#last = 0
    this.#last = Math.max(this.#last + 1, stampOf(this.#clock.wallMs()))
    return this.#last
  }

  /** Takes note of another node's stamp; one that `isAhead` is not believed and changes nothing. */
  observe(stamp: Stamp): void {
    if (!this.isAhead(stamp)) this.#last = Math.max(this.#last, stamp)
  }

  isAhead(stamp: Stamp): boolean {
    return stamp > stampOf(this.#clock.wallMs() + AHEAD_MS_MAX)
  }
}
