/**
 * The entries of copy-wire.ts on every link with a peer: many small ones gathered into one message,
 * which costs one seal and one call, and what comes handed to whom it concerns.
 */
import type { Clock, Timer } from '../base/clock.ts'
import type { NodeId } from '../base/ids.ts'
import { giveBack } from '../base/memory.ts'
import type { Observer } from '../base/observe.ts'
import { type Link, type Links, MESSAGE } from './contract.ts'
import { type Entry, encodeEntry, readEntries } from './copy-wire.ts'
import { blankBytes } from './inbox.ts'

/** One frame of the channel, with what the link adds; long enough for its quicker cipher. */
const GATHERED_BYTES_MAX = 62 * 1024
/** What need not go at once waits so long for company. */
const GATHER_MS = 1
/** What waits for one peer here and on its link; bodies wait on disk beyond it. */
const LOAD_BYTES_MAX = 3 * 1024 * 1024
const NO_BYTES = new Uint8Array(0)

/** One link, and what is on its way to it. */
export class CopyLine {
  readonly peer: NodeId
  readonly link: Link
  readonly #clock: Clock
  /** Entries one behind the other, in memory that is used again and again. */
  #gathered: Uint8Array = NO_BYTES
  #filled = 0
  /** Before them, what the link did not take and what is too long to be gathered. */
  #queue: Uint8Array[] = []
  #queuedBytes = 0
  #timer: Timer | null = null
  #isFlushing = false
  #waitsForLink = false
  #waiting: (() => void)[] = []
  isOpen = true

  constructor(link: Link, clock: Clock) {
    this.link = link
    this.peer = link.peer
    this.#clock = clock
  }

  /** True while more bytes of bodies may be put. */
  get hasRoom(): boolean {
    const bytes = this.#filled + this.#queuedBytes + this.link.backlogBytes
    return this.isOpen && bytes < LOAD_BYTES_MAX
  }

  /** Resolves when there is room or the link is gone; in the order in which it was asked. */
  room(): Promise<void> {
    if (this.hasRoom || !this.isOpen) return Promise.resolve()
    return new Promise((resolve) => {
      this.#waiting.push(resolve)
      if (this.#waiting.length === 1) this.#watch()
    })
  }

  /**
   * An entry, taken in any case, its bytes before this returns. `gathers`: others wait for an
   * answer, so it may wait for that, and at most 1 ms.
   */
  put(entry: Entry, gathers = false): void {
    if (!this.isOpen) return
    encodeEntry(entry, (length) => this.#place(length))
    if (this.#waitsForLink || this.#isFlushing) return
    if (gathers) {
      this.#timer ??= this.#clock.after(GATHER_MS, () => this.#flush())
      return
    }
    this.#isFlushing = true
    // What is said in the same turn goes with it.
    queueMicrotask(() => {
      this.#isFlushing = false
      this.#flush()
    })
  }

  /** What gathers goes now: who was waited for has answered. */
  release(): void {
    if (this.#timer !== null && !this.#waitsForLink) this.#flush()
  }

  close(): void {
    this.isOpen = false
    this.#timer?.cancel()
    this.#queue = []
    this.#queuedBytes = 0
    this.#filled = 0
    this.#wake()
  }

  /** Where the next entry goes, behind what is there. */
  #place(length: number): Uint8Array {
    const end = this.#filled + length
    if (end > GATHERED_BYTES_MAX && this.#filled > 0) {
      this.#flush()
      this.#enqueue(this.#gathered.slice(0, this.#filled))
      this.#filled = 0
    }
    if (length > GATHERED_BYTES_MAX) return this.#enqueue(blankBytes(length))
    if (this.#gathered.length === 0) this.#gathered = blankBytes(GATHERED_BYTES_MAX)
    const from = this.#filled
    this.#filled += length
    return this.#gathered.subarray(from, this.#filled)
  }

  #enqueue(body: Uint8Array): Uint8Array {
    if (body.length > 0) this.#queue.push(body)
    this.#queuedBytes += body.length
    return body
  }

  #flush(): void {
    this.#timer?.cancel()
    this.#timer = null
    if (!this.isOpen || this.#waitsForLink) return
    for (let body = this.#queue[0]; body !== undefined; body = this.#queue[0]) {
      if (!this.#send(body)) return
      this.#queue.shift()
      this.#queuedBytes -= body.length
    }
    if (this.#filled > 0 && this.#send(this.#gathered.subarray(0, this.#filled))) this.#filled = 0
  }

  #send(body: Uint8Array): boolean {
    if (this.link.send(MESSAGE.mail, body, true)) return true
    this.#waitsForLink = true
    this.link.onceDrained(() => {
      this.#waitsForLink = false
      this.#flush()
    })
    return false
  }

  #watch(): void {
    this.link.onceDrained(() => {
      if (this.hasRoom) this.#wake()
      if (this.#waiting.length > 0) this.#clock.after(GATHER_MS, () => this.#watch())
    })
  }

  #wake(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const run of waiting) run()
  }
}

export type LineListener = {
  opened?(line: CopyLine): void
  /** Bytes of the entry are lent for the call: who wants them afterwards copies them. */
  said?(line: CopyLine, entry: Entry): void
  closed?(line: CopyLine): void
}

export class CopyLines {
  readonly #lines = new Map<NodeId, CopyLine>()
  readonly #listeners: LineListener[] = []
  readonly #clock: Clock
  readonly #observer: Observer

  constructor(links: Links, deps: { readonly clock: Clock; readonly observer: Observer }) {
    this.#clock = deps.clock
    this.#observer = deps.observer
    for (const link of links.all()) this.#open(link)
    links.onOpen((link) => this.#open(link))
    links.onClose((link) => this.#close(link))
    links.onMessage(MESSAGE.mail, (link, body) => this.#read(link, body))
  }

  get(node: NodeId): CopyLine | null {
    return this.#lines.get(node) ?? null
  }

  /** Also told of the links that are open already. */
  listen(listener: LineListener): void {
    this.#listeners.push(listener)
    for (const line of this.#lines.values()) listener.opened?.(line)
  }

  #open(link: Link): void {
    const before = this.#lines.get(link.peer)
    if (before !== undefined) this.#close(before.link)
    const line = new CopyLine(link, this.#clock)
    this.#lines.set(link.peer, line)
    for (const listener of this.#listeners) listener.opened?.(line)
  }

  #close(link: Link): void {
    const line = this.#lines.get(link.peer)
    if (line?.link !== link) return
    this.#lines.delete(link.peer)
    line.close()
    for (const listener of this.#listeners) listener.closed?.(line)
  }

  #read(link: Link, body: Uint8Array): void {
    const line = this.#lines.get(link.peer)
    if (line?.link !== link) return
    const entries = readEntries(body)
    if (entries === null) return this.refuse(line, 'body')
    for (const entry of entries) {
      for (const listener of this.#listeners) listener.said?.(line, entry)
    }
    giveBack(body)
  }

  /** It said what nobody of us says. */
  refuse(line: CopyLine, why: 'body' | 'commit' | 'order'): void {
    this.#observer.emit('copy.garbled', { peer: line.peer, why })
    line.link.close('it sent what cannot be read about copies of mail')
  }
}
