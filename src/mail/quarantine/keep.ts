/** The end of held mail and of old history: retention, in small steps, all the time. */
import type { Clock, Timer } from '../../base/clock.ts'
import { StoreError } from '../../base/errors.ts'
import type { MessageId } from '../../base/ids.ts'
import type { Observer } from '../../base/observe.ts'
import type { LiveConfig } from '../../config/live.ts'
import type { Bodies } from '../../store/bodies.ts'
import type { Quarantine } from '../../store/quarantine.ts'
import type { Trace } from '../../store/trace.ts'

const DAY_MS = 86_400_000
const STEP_MS = 5_000
/** Rows of one step: a step is short enough not to be felt by a mail. */
const STEP_ROWS = 200
/** While a step was full, the next one comes sooner. */
const NEXT_STEP_MS = 100

export type KeeperDeps = {
  readonly bodies: Pick<Bodies, 'remove'>
  /** A deleted or released body can be had back this long (design: mail.md, Release once). */
  readonly deletedMs: number
  readonly quarantine: Quarantine
  readonly trace: Trace
  readonly live: LiveConfig
  readonly clock: Clock
  readonly observer: Observer
  /** Copies at `places` have expired: for the trace. */
  readonly expired: (id: MessageId, places: readonly number[]) => void
}

export class Keeper {
  readonly #deps: KeeperDeps
  #timer: Timer | null = null
  #running: Promise<void> = Promise.resolve()
  #stopped = false

  constructor(deps: KeeperDeps) {
    this.#deps = deps
  }

  start(): void {
    this.#plan(STEP_MS)
  }

  /** Resolves when a step that runs has ended. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#timer?.cancel()
    await this.#running
  }

  #plan(delayMs: number): void {
    if (this.#stopped) return
    this.#timer = this.#deps.clock.after(delayMs, () => {
      this.#running = this.#step().then((isFull) => this.#plan(isFull ? NEXT_STEP_MS : STEP_MS))
    })
  }

  /** True when there is more of something than one step takes. */
  async #step(): Promise<boolean> {
    const { trace, live, clock } = this.#deps
    const nowMs = clock.wallMs()
    try {
      const counts = [
        this.#expire(nowMs),
        await this.#removeBodies(nowMs),
        trace.prune(nowMs - live.current.settings['trace.keep'] * DAY_MS, STEP_ROWS),
      ]
      return counts.some((count) => count >= STEP_ROWS)
    } catch (error) {
      // The store has told the observer; the next step asks again.
      if (!(error instanceof StoreError)) throw error
      return false
    }
  }

  #expire(nowMs: number): number {
    const { quarantine, observer } = this.#deps
    const ids = quarantine.expired(nowMs, STEP_ROWS)
    for (const id of ids) {
      const claimed = quarantine.claim(id, null, { kind: 'expire', by: 'postern', atMs: nowMs })
      const places = claimed.filter(({ won }) => won).map(({ place }) => place)
      observer.emit('mail.deleted', { message: id, recipients: places.length, why: 'expired' })
      this.#deps.expired(id, places)
    }
    return ids.length
  }

  async #removeBodies(nowMs: number): Promise<number> {
    const { quarantine, bodies } = this.#deps
    const ids = quarantine.removable(nowMs - this.#deps.deletedMs, STEP_ROWS)
    for (const id of ids) {
      await bodies.remove(id)
      quarantine.markBodyGone(id)
    }
    return ids.length
  }
}
