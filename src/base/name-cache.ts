/** Answers of the name servers for as long as they hold, in bounded memory. */
import type { Clock } from './clock.ts'
import type { DnsAnswer } from './names.ts'

/** Whatever the server says: a second of nothing is a flood, a day of something old is enough. */
const FOUND_MS = { min: 5_000, max: 86_400_000 } as const
/** RFC 2308 section 5 allows hours; a domain that is new should be seen sooner. */
const ABSENT_MS = { min: 5_000, max: 3_600_000, unsaid: 30_000 } as const
/** RFC 2308 section 7 allows five minutes; what asks again soon should get its chance. */
const FAILED_MS = 5_000
const ENTRIES_MAX = 20_000
const CHARS_MAX = 8 * 1024 * 1024
/** What an entry takes beside its text. */
const ENTRY_CHARS = 200

type Entry = { readonly answer: DnsAnswer; readonly untilMono: number; readonly chars: number }

export class NameCache {
  readonly #clock: Clock
  /** The one longest unused comes first. */
  readonly #entries = new Map<string, Entry>()
  #chars = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get size(): number {
    return this.#entries.size
  }

  get(key: string): DnsAnswer | null {
    const entry = this.#entries.get(key)
    if (entry === undefined) return null
    this.#forget(key, entry)
    if (entry.untilMono <= this.#clock.monoMs()) return null
    this.#keep(key, entry)
    return entry.answer
  }

  /** `ttlMs`: as the server says; null: it does not. */
  put(key: string, answer: DnsAnswer, ttlMs: number | null): void {
    const before = this.#entries.get(key)
    if (before !== undefined) this.#forget(key, before)
    const records = answer.status === 'found' ? answer.records : []
    const chars = records.reduce((sum, text) => sum + text.length, ENTRY_CHARS + key.length)
    this.#keep(key, { answer, untilMono: this.#clock.monoMs() + lifeOf(answer, ttlMs), chars })
    for (const [oldest, entry] of this.#entries) {
      if (this.#entries.size <= ENTRIES_MAX && this.#chars <= CHARS_MAX) break
      this.#forget(oldest, entry)
    }
  }

  clear(): void {
    this.#entries.clear()
    this.#chars = 0
  }

  #keep(key: string, entry: Entry): void {
    this.#entries.set(key, entry)
    this.#chars += entry.chars
  }

  #forget(key: string, entry: Entry): void {
    this.#entries.delete(key)
    this.#chars -= entry.chars
  }
}

function lifeOf({ status }: DnsAnswer, ttlMs: number | null): number {
  switch (status) {
    case 'found':
      return Math.min(FOUND_MS.max, Math.max(FOUND_MS.min, ttlMs ?? 0))
    case 'absent':
      return Math.min(ABSENT_MS.max, Math.max(ABSENT_MS.min, ttlMs ?? ABSENT_MS.unsaid))
    case 'failed':
      return FAILED_MS
  }
}
