/** What a node does by the clock alone: expire, remove, forget, and finish what was cut off. */
import type { Clock, Timer } from '../base/clock.ts'
import { StoreError } from '../base/errors.ts'
import type { Observer } from '../base/observe.ts'
import type { LiveConfig } from '../config/live.ts'
import type { Bodies } from '../store/bodies.ts'
import type { Quarantine } from '../store/quarantine.ts'
import type { Trace } from '../store/trace.ts'
import type { Releases } from './held.ts'

const EVERY_MS = 10_000
/** One round takes at most this many of each kind: none stops the loop for long. */
const BATCH = 200
/** While a round was full, the next one comes sooner. */
const AGAIN_MS = 100
const DAY_MS = 86_400_000
/** A decision keeps the content this long (design: mail.md, Release once). */
const BODY_KEPT_MS = 600_000
/** Decided mail stays visible on its page this long. */
const DECIDED_KEPT_MS = 7 * DAY_MS

export type UpkeepDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly live: LiveConfig
  readonly trace: Trace
  readonly quarantine: Quarantine
  readonly bodies: Bodies
  readonly admin: Releases
}

export class Upkeep {
  readonly #deps: UpkeepDeps
  #timer: Timer | null = null
  #running: Promise<void> = Promise.resolve()
  #stopped = false

  constructor(deps: UpkeepDeps) {
    this.#deps = deps
  }

  start(): void {
    this.#plan(EVERY_MS)
  }

  /** Resolves when a round that runs has ended. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#timer?.cancel()
    await this.#running
  }

  /** One round; true when there is more to do at once. @throws StoreError */
  async round(): Promise<boolean> {
    const { clock, live, trace, quarantine, admin } = this.#deps
    const nowMs = clock.wallMs()
    await admin.resumeReleases()
    const expired = this.#expire(nowMs)
    const removed = await this.#removeBodies(nowMs)
    const forgotten = quarantine.prune(nowMs - DECIDED_KEPT_MS, BATCH)
    const pruned = trace.prune(nowMs - live.current.settings['trace.keep'] * DAY_MS, BATCH)
    return [expired, removed, forgotten, pruned].some((count) => count >= BATCH)
  }

  #plan(delayMs: number): void {
    if (this.#stopped) return
    this.#timer = this.#deps.clock.after(delayMs, () => {
      this.#running = this.#roundOrFailure()
    })
  }

  async #roundOrFailure(): Promise<void> {
    let more = false
    try {
      more = await this.round()
    } catch (error) {
      // The store has observed it; the next round tries again.
      if (!(error instanceof StoreError)) throw error
    }
    this.#plan(more ? AGAIN_MS : EVERY_MS)
  }

  #expire(nowMs: number): number {
    const { quarantine, trace, observer } = this.#deps
    const ids = quarantine.expired(nowMs, BATCH)
    for (const id of ids) {
      const claimed = quarantine.claim(id, null, { kind: 'expire', by: 'postern', atMs: nowMs })
      const won = claimed.filter((copy) => copy.won)
      observer.emit('mail.deleted', { message: id, recipients: won.length, why: 'expired' })
      for (const { place, address } of won) {
        trace.outcome(id, place, 'expired', 'kept for its time', {
          atMs: nowMs,
          recipient: address,
          what: 'expired',
          detail: 'nobody released it in time',
        })
      }
    }
    return ids.length
  }

  async #removeBodies(nowMs: number): Promise<number> {
    const { quarantine, bodies } = this.#deps
    const ids = quarantine.removable(nowMs - BODY_KEPT_MS, BATCH)
    for (const id of ids) {
      await bodies.remove(id)
      quarantine.markBodyGone(id)
    }
    return ids.length
  }
}
