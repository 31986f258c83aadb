/** What was learnt, for as long as it holds; the one longest unchanged goes first beyond a bound. */
import type { Clock } from './clock.ts'

export class Expiring<Value> {
  readonly #clock: Clock
  readonly #most: number
  readonly #entries = new Map<string, { readonly value: Value; readonly untilMono: number }>()

  /** `most`: entries at a time. */
  constructor(clock: Clock, most: number) {
    this.#clock = clock
    this.#most = most
  }

  get size(): number {
    return this.#entries.size
  }

  /** Undefined: nothing that still holds. */
  get(key: string): Value | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) return undefined
    if (entry.untilMono > this.#clock.monoMs()) return entry.value
    this.#entries.delete(key)
    return undefined
  }

  set(key: string, value: Value, forMs: number): void {
    this.#entries.delete(key)
    this.#entries.set(key, { value, untilMono: this.#clock.monoMs() + forMs })
    const [oldest] = this.#entries.keys()
    if (this.#entries.size > this.#most && oldest !== undefined) this.#entries.delete(oldest)
  }

  delete(key: string): void {
    this.#entries.delete(key)
  }
}
