/**
 * The counts of all that was learnt, in memory and in a file that the inspectors map (layout:
 * message/learned). Derived: it is made anew from the samples at every start, so nothing of it is
 * synced, and a file that a crash left half written is never read again.
 */
import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { removeFile } from '../base/files.ts'
import {
  ABOUT,
  ABOUT_BYTES,
  ANY_TOKEN,
  type Counts,
  HEAD,
  hashOfText,
  type Image,
  LABEL_CODES,
  type Label,
  NAME_BYTES_MAX,
  newImage,
  placeOf,
  type Sample,
  SIGNATURE_BYTES,
  tokenOfDomain,
} from '../message/learned.ts'

/** A sample, and as what it was learnt. */
export type Learnt = {
  readonly sample: Sample
  readonly label: Label
  /** Domain of its recipients; null: several, or unknown. */
  readonly domain: string | null
}

const SLOTS_FIRST = 65_536
const ROOM_FIRST = 256
/** Slots in use of 10 beyond which there must be twice as many: searches stay at two steps. */
const FULL_TENTHS = 6
const PAGE_BYTES = 4_096

export class LearnedTable {
  readonly #directory: string
  readonly #name: () => string
  #image: Image = newImage(SLOTS_FIRST, ROOM_FIRST)
  #used = 0
  readonly #places = new Map<string, number>()
  /** Pages of the file that are not what the memory says. */
  readonly #dirty = new Set<number>()
  #path: string | null = null
  #fd = -1

  /** `name`: of the next file, never one of before. */
  constructor(directory: string, name: () => string) {
    this.#directory = directory
    this.#name = name
  }

  /** The file; null: there is none yet. */
  get path(): string | null {
    return this.#path
  }

  get samples(): Counts {
    const { head } = this.#image
    return { spam: head[HEAD.spam] ?? 0, ham: head[HEAD.ham] ?? 0 }
  }

  /** `step` 1: learnt; -1: forgotten again, which leaves what was before. */
  count({ sample, label, domain }: Learnt, step: 1 | -1): void {
    const { head } = this.#image
    const at = HEAD[label]
    head[at] = (head[at] ?? 0) + step
    this.#touch(4 * at)
    const own = domain === null ? null : hashOfText(domain)
    for (const token of sample.tokens) {
      this.#add(token, label, step)
      if (own !== null) this.#add(tokenOfDomain(token, own), label, step)
    }
    if (own !== null) this.#add(tokenOfDomain(ANY_TOKEN, own), label, step)
  }

  /** From now on it is known again when it changes. */
  know({ sample, label }: Learnt): void {
    const { signature, fingerprint, subject } = sample
    if (signature === null) return
    let index = this.#places.get(fingerprint)
    if (index === undefined) {
      index = this.#places.size
      if (index === this.#image.head[HEAD.room])
        this.#grow(this.#image.head[HEAD.slots] ?? 0, 2 * index)
      this.#places.set(fingerprint, index)
    }
    const about = Buffer.alloc(ABOUT_BYTES)
    about[ABOUT.label] = LABEL_CODES[label]
    about.write(fingerprint, ABOUT.fingerprint, 'hex')
    about[ABOUT.length] = about.write(subject, ABOUT.name, NAME_BYTES_MAX, 'utf8')
    this.#put(index, signature, about)
    this.#setKnown()
  }

  unknow(fingerprint: string): void {
    const index = this.#places.get(fingerprint)
    if (index === undefined) return
    const last = this.#places.size - 1
    const { signatures, about } = this.#image
    this.#places.delete(fingerprint)
    if (index !== last) {
      const moved = Buffer.from(about.slice(last * ABOUT_BYTES, (last + 1) * ABOUT_BYTES))
      const of = moved.toString('hex', ABOUT.fingerprint, ABOUT.length)
      this.#put(
        index,
        signatures.slice(last * SIGNATURE_BYTES, (last + 1) * SIGNATURE_BYTES),
        moved,
      )
      this.#places.set(of, index)
    }
    // Nothing of what is forgotten stays on the disk.
    this.#put(last, new Uint8Array(SIGNATURE_BYTES), new Uint8Array(ABOUT_BYTES))
    this.#setKnown()
  }

  /**
   * Brings the file to what the memory says. A table that grew gets a new one, under another name.
   * @throws Error of the disk
   */
  flush(): void {
    const { bytes } = this.#image
    if (this.#fd !== -1) {
      for (const page of this.#dirty) {
        const from = page * PAGE_BYTES
        writeAll(this.#fd, bytes.subarray(from, from + PAGE_BYTES), from)
      }
      this.#dirty.clear()
      return
    }
    const path = join(this.#directory, this.#name())
    const fd = openSync(path, 'wx', 0o600)
    try {
      writeAll(fd, bytes, 0)
    } catch (error) {
      closeSync(fd)
      removeFile(path)
      throw error
    }
    this.#fd = fd
    this.#path = path
    this.#dirty.clear()
  }

  close(): void {
    if (this.#fd !== -1) closeSync(this.#fd)
    this.#fd = -1
  }

  /** Everything that is counted, in an order of its own: equal for equal samples. */
  dump(): string {
    const { head, slots, signatures, about } = this.#image
    const lines = [`samples ${head[HEAD.spam]} ${head[HEAD.ham]}`]
    const tokens: number[] = []
    for (let at = 0; at < slots.length; at += 2) if ((slots[at + 1] ?? 0) !== 0) tokens.push(at)
    tokens.sort((a, b) => (slots[a] ?? 0) - (slots[b] ?? 0))
    for (const at of tokens) {
      const counts = slots[at + 1] ?? 0
      lines.push(`${slots[at]} ${counts & 0xffff} ${counts >>> 16}`)
    }
    for (const [fingerprint, index] of [...this.#places].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const signature = signatures.subarray(index * SIGNATURE_BYTES, (index + 1) * SIGNATURE_BYTES)
      const beside = about.subarray(index * ABOUT_BYTES, (index + 1) * ABOUT_BYTES)
      lines.push(
        `${fingerprint} ${Buffer.from(signature).toString('hex')} ${Buffer.from(beside).toString('hex')}`,
      )
    }
    return lines.join('\n')
  }

  /**
   * Halves of a word, modulo 65,536: no count gets there, for at most 50,000 samples of a class
   * are kept, and what goes beyond for a while comes back exactly.
   */
  #add(token: number, label: Label, step: 1 | -1): void {
    let { slots } = this.#image
    let at = placeOf(slots, token)
    if (slots[at] === 0) {
      if ((this.#used + 1) * 20 > slots.length * FULL_TENTHS) {
        this.#grow(slots.length, this.#image.head[HEAD.room] ?? 0)
        slots = this.#image.slots
        at = placeOf(slots, token)
      }
      slots[at] = token
      this.#used += 1
    }
    const counts = slots[at + 1] ?? 0
    const spam = (counts + (label === 'spam' ? step : 0)) & 0xffff
    const ham = ((counts >>> 16) + (label === 'ham' ? step : 0)) & 0xffff
    slots[at + 1] = (ham * 0x1_0000 + spam) >>> 0
    this.#touch(slots.byteOffset + 4 * at)
  }

  #put(index: number, signature: Uint8Array, about: Uint8Array): void {
    const image = this.#image
    image.signatures.set(signature, index * SIGNATURE_BYTES)
    this.#touch(image.signatures.byteOffset + index * SIGNATURE_BYTES, SIGNATURE_BYTES)
    image.about.set(about, index * ABOUT_BYTES)
    this.#touch(image.about.byteOffset + index * ABOUT_BYTES, ABOUT_BYTES)
  }

  #setKnown(): void {
    this.#image.head[HEAD.known] = this.#places.size
    this.#touch(4 * HEAD.known)
  }

  #touch(from: number, length = 4): void {
    for (let page = Math.floor(from / PAGE_BYTES); page * PAGE_BYTES < from + length; page += 1) {
      this.#dirty.add(page)
    }
  }

  /** Into a larger one, and another file; tokens that nothing counts any more stay behind. */
  #grow(slots: number, room: number): void {
    const before = this.#image
    const next = newImage(slots, room)
    this.#used = 0
    for (let at = 0; at < before.slots.length; at += 2) {
      const counts = before.slots[at + 1] ?? 0
      if (counts === 0) continue
      const token = before.slots[at] ?? 0
      const to = placeOf(next.slots, token)
      next.slots[to] = token
      next.slots[to + 1] = counts
      this.#used += 1
    }
    next.signatures.set(before.signatures)
    next.about.set(before.about)
    for (const at of [HEAD.known, HEAD.spam, HEAD.ham]) next.head[at] = before.head[at] ?? 0
    this.#image = next
    this.close()
  }
}

function writeAll(fd: number, bytes: Uint8Array, from: number): void {
  for (let at = 0; at < bytes.length; ) {
    at += writeSync(fd, bytes, at, bytes.length - at, from + at)
  }
}
