/** Timers that notice when the process stood still: then the fault is here, not out there. */
import type { Clock, Timer } from '../base/clock.ts'

/** A timer that is so late says that this process stood still. */
const STALL_MS = 250
/** What was due meanwhile gets at most this much time again: the answers wait in the socket. */
const GRACE_MS_MAX = 5_000

export class StallClock {
  readonly #clock: Clock
  readonly #stalled: (ms: number) => void
  /** Up to here stalls are counted: several timers are late for one reason. */
  #awakeMono: number
  #isStopped = false

  /** `stalled` is called once for each stall, with about its length. */
  constructor(clock: Clock, stalled: (ms: number) => void) {
    this.#clock = clock
    this.#stalled = stalled
    this.#awakeMono = clock.monoMs()
  }

  monoMs(): number {
    return this.#clock.monoMs()
  }

  /** No timer runs any more. */
  stop(): void {
    this.#isStopped = true
  }

  after(delayMs: number, run: () => void): Timer {
    const dueMono = this.monoMs() + delayMs
    return this.#clock.after(delayMs, () => {
      if (this.#isStopped) return
      const nowMono = this.monoMs()
      const lateMs = nowMono - Math.max(dueMono, this.#awakeMono)
      this.#awakeMono = nowMono
      if (lateMs > STALL_MS) this.#stalled(Math.round(lateMs))
      run()
    })
  }

  /**
   * As `after`, for a time limit on others: what this process stood still beyond it, they get
   * again, since their answers are still to be read.
   */
  limit(delayMs: number, run: () => void): Timer {
    const dueMono = this.monoMs() + delayMs
    let timer = this.after(delayMs, () => {
      const lateMs = this.monoMs() - dueMono
      if (lateMs <= STALL_MS) run()
      else timer = this.limit(Math.min(lateMs, GRACE_MS_MAX), run)
    })
    return { cancel: () => timer.cancel() }
  }
}
