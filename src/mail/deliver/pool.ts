/** Connections that stand between two messages: few, for a few seconds, for a bounded number. */
import type { Clock, Timer } from '../../base/clock.ts'
import type { Client } from './client.ts'

/** Next hops count an idle connection as a busy one: it is kept for the next burst only. */
const IDLE_MS_MAX = 4_000
/** Messages of one connection; hops that balance load want new ones now and then. */
const MESSAGES_MAX = 100
/** Idle connections to one next hop. */
const IDLE_PER_HOP_MAX = 50
/** Idle connections in all, within the descriptors of a small machine. */
const IDLE_MAX = 500

type Idle = { readonly client: Client; readonly sinceMs: number }

export class Pool {
  readonly #clock: Clock
  /** By key, oldest first. */
  readonly #idle = new Map<string, Idle[]>()
  #count = 0
  #sweep: Timer | null = null
  #isClosed = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** The connection of `key` that was used last, or null. */
  take(key: string): Client | null {
    const client = this.#idle.get(key)?.at(-1)?.client ?? null
    if (client !== null) this.#remove(key, client)
    return client
  }

  /** Keeps a connection whose transaction is over, or ends it. */
  give(key: string, client: Client): void {
    if (!client.isClean) return client.abandon()
    const mayStay = !this.#isClosed && client.messages < MESSAGES_MAX && this.#count < IDLE_MAX
    const others = this.#idle.get(key)
    if (!mayStay || (others?.length ?? 0) >= IDLE_PER_HOP_MAX) return client.quit()
    const entry = { client, sinceMs: this.#clock.monoMs() }
    if (others === undefined) this.#idle.set(key, [entry])
    else others.push(entry)
    this.#count += 1
    client.park(() => this.#remove(key, client))
    this.#sweep ??= this.#clock.after(IDLE_MS_MAX, () => this.#sweepOld())
  }

  /** Ends all idle connections, and every one that is given back from here on. */
  close(): void {
    this.#isClosed = true
    this.#sweep?.cancel()
    this.#sweep = null
    for (const [key, entries] of [...this.#idle]) {
      for (const { client } of [...entries]) this.#end(key, client)
    }
  }

  #end(key: string, client: Client): void {
    this.#remove(key, client)
    client.quit()
  }

  #remove(key: string, client: Client): void {
    const entries = this.#idle.get(key)
    const place = entries?.findIndex((entry) => entry.client === client) ?? -1
    if (entries === undefined || place < 0) return
    client.unpark()
    entries.splice(place, 1)
    this.#count -= 1
    if (entries.length === 0) this.#idle.delete(key)
  }

  #sweepOld(): void {
    this.#sweep = null
    const nowMs = this.#clock.monoMs()
    let oldestMs = nowMs
    for (const [key, entries] of [...this.#idle]) {
      for (const { client, sinceMs } of [...entries]) {
        if (nowMs - sinceMs >= IDLE_MS_MAX) this.#end(key, client)
        else oldestMs = Math.min(oldestMs, sinceMs)
      }
    }
    if (this.#count === 0) return
    const delayMs = Math.max(1, oldestMs + IDLE_MS_MAX - nowMs)
    this.#sweep = this.#clock.after(delayMs, () => this.#sweepOld())
  }
}
