/** Keeps the memory of passing traffic bounded: the collector does not see it as pressure. */
import { edenGC } from 'bun:jsc'
import type { Clock, Timer } from './clock.ts'

/**
 * Bytes taken from sockets after which garbage is collected: what is left when blocks are given
 * back by `giveBack`. A collection costs 25 ms of CPU with helpers, so not often.
 */
const COLLECT_EVERY_BYTES = 64 * 1024 * 1024
/** The same of JSON, in one go: what is read is a few times as large, and for the most part garbage at once. */
const COLLECT_EVERY_JSON_BYTES = 4 * 1024 * 1024
/**
 * Pieces of long standing that were let go after which all is collected: where the young is
 * collected by hand the engine does not look among the old by itself, and 100,000 mails that had
 * waited left 300 MB. It takes 50 to 200 ms, by how much is known.
 */
const COLLECT_EVERY_OLD = 8_000
/**
 * Parts of them after which the young is collected: the engine lets it grow with what is known, and
 * between two looks of its own an attempt for each of a million recipients left 100 MB. 6 ms.
 */
const COLLECT_EVERY_PARTS = 1_000
/** Silence after which what the traffic left is given back. */
const REST_MS = 1_000

export class TrafficMemory {
  readonly #clock: Clock
  #bytes = 0
  #lastMono: number
  #rest: Timer | null
  #hasRested = false

  constructor(clock: Clock) {
    this.#clock = clock
    this.#lastMono = clock.monoMs()
    this.#rest = clock.after(REST_MS, () => this.#mayRest())
  }

  /** Call with the size of every block that came from a socket. */
  took(bytes: number): void {
    this.#bytes += bytes
    this.#lastMono = this.#clock.monoMs()
    this.#rest ??= this.#clock.after(REST_MS, () => this.#mayRest())
    if (this.#bytes < COLLECT_EVERY_BYTES) return
    this.#bytes = 0
    Bun.gc(true)
  }

  #mayRest(): void {
    const leftMs = this.#lastMono + REST_MS - this.#clock.monoMs()
    this.#rest = null
    if (leftMs > 0) {
      this.#rest = this.#clock.after(leftMs, () => this.#mayRest())
      return
    }
    Bun.gc(true)
    if (this.#hasRested) return
    this.#hasRested = true
    // Most code of the start runs no second time: a twelfth of what an idle node takes.
    Bun.shrink()
  }
}

const DECODER = new TextDecoder()
let jsonBytes = 0

/**
 * What JSON, as text or in UTF-8, says. Read by the ten thousand, it does not fill the memory with
 * what is not wanted any more. @throws SyntaxError
 */
export function parseJson(json: Uint8Array | string): unknown {
  jsonBytes += json.length
  if (jsonBytes >= COLLECT_EVERY_JSON_BYTES) {
    jsonBytes = 0
    // Only what is young: some ms, however much is known.
    edenGC()
  }
  // Not through its `buffer`: asked for that, a small array becomes three objects.
  return JSON.parse(typeof json === 'string' ? json : DECODER.decode(json))
}

/** Texts that are known to be shared. */
const SHARED_MAX = 1_000
const sharedTexts = new Map<string, string>()

/** The same text, once in memory for all that say it at about the same time. */
export function shared(text: string): string {
  const known = sharedTexts.get(text)
  if (known !== undefined) return known
  if (sharedTexts.size >= SHARED_MAX) sharedTexts.clear()
  sharedTexts.set(text, text)
  return text
}

let oldGone = 0
let partsGone = 0

/**
 * Call when things that had been known for long are over, or most of them is; `parts`: of so many
 * that each left something young behind.
 */
export function letOldGo(things: number, parts: number): void {
  oldGone += things
  partsGone += parts
  if (oldGone >= COLLECT_EVERY_OLD) {
    oldGone = 0
    partsGone = 0
    Bun.gc(true)
  } else if (partsGone >= COLLECT_EVERY_PARTS) {
    partsGone = 0
    edenGC()
  }
}

/** Less is not worth the call, and may stand in memory that others share. */
const GIVEN_BYTES_MIN = 4 * 1024

/**
 * Gives the memory of a block at once for the next one: the engine counts it as a small object.
 * Left to the collector, 100 senders of 1 MB grow the process by 200 MB, and every block is put
 * into memory that the kernel has to blank first. Nobody may hold a view of it. A short block, and
 * a view of something larger, stays as it is.
 */
export function giveBack(block: Uint8Array): void {
  const buffer = block.buffer as ArrayBuffer
  // A cipher takes one octet more than it gives.
  if (block.length < GIVEN_BYTES_MIN || buffer.byteLength > block.length + 1) return
  // Another length cannot stay in place: the old memory is freed, the view is empty from here on.
  buffer.transfer(0)
}
