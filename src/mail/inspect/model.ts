/**
 * What was learnt, as an inspector reads it: a file of counts, mapped into memory, that the main
 * process goes on changing in place. A count may be a moment old; nothing is locked.
 */
import { dlopen, ptr, toArrayBuffer } from 'bun:ffi'
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { messageOf } from '../../base/errors.ts'
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
  placeOf,
  readImage,
  SIGNATURE_BYTES,
  tokenOfDomain,
} from '../../message/learned.ts'

/** A message that was learnt, and how much of a signature is its own. */
export type Likeness = {
  readonly label: Label
  /** 0..1: the part of both texts that is the same, as the signatures tell it. */
  readonly part: number
  readonly name: string
  readonly fingerprint: string
}

export interface Model {
  /** Samples, in all, or of a domain. */
  samples(domain: string | null): Counts
  /** How many samples have the token; of a domain by its hash (`domainOf`). */
  count(token: number, domain: number | null): Counts
  /** The same of all domains in one number: spam below, ham from bit 16 on. Makes no garbage. */
  packed(token: number): number
  /** The learnt message that is most like this one, of each label. */
  alike(signature: Uint8Array): readonly Likeness[]
}

export function domainOf(name: string): number {
  return hashOfText(name.toLowerCase())
}

export class LearntModel implements Model {
  readonly #image: Image

  /** @throws Error when it is no file of counts of this version */
  constructor(buffer: ArrayBuffer) {
    const image = readImage(buffer)
    if (image === null) throw new Error('the file of what was learnt cannot be read')
    this.#image = image
  }

  samples(domain: string | null): Counts {
    const { head } = this.#image
    if (domain !== null) return this.count(ANY_TOKEN, domainOf(domain))
    return { spam: head[HEAD.spam] ?? 0, ham: head[HEAD.ham] ?? 0 }
  }

  count(token: number, domain: number | null): Counts {
    const { slots } = this.#image
    const at = placeOf(slots, domain === null ? token : tokenOfDomain(token, domain))
    const counts = slots[at + 1] ?? 0
    return { spam: counts & 0xffff, ham: counts >>> 16 }
  }

  packed(token: number): number {
    const { slots } = this.#image
    return slots[placeOf(slots, token) + 1] ?? 0
  }

  alike(signature: Uint8Array): readonly Likeness[] {
    const { head, signatures } = this.#image
    const known = Math.min(head[HEAD.known] ?? 0, head[HEAD.room] ?? 0)
    const best = new Map<Label, Likeness>()
    for (let index = 0; index < known; index += 1) {
      const equal = equalOctets(signatures, index * SIGNATURE_BYTES, signature)
      if (equal < EQUAL_LEAST) continue
      const one = this.#about(index, partOf(equal))
      const before = one === null ? undefined : best.get(one.label)
      if (one === null || (before !== undefined && !isCloser(one, before))) continue
      best.set(one.label, one)
    }
    return [...best.values()].sort((a, b) => (a.label < b.label ? 1 : -1))
  }

  #about(index: number, part: number): Likeness | null {
    const { about } = this.#image
    const at = index * ABOUT_BYTES
    const label = about[at + ABOUT.label]
    const bytes = Buffer.from(about.buffer, about.byteOffset + at, ABOUT_BYTES)
    if (label !== LABEL_CODES.spam && label !== LABEL_CODES.ham) return null
    return {
      label: label === LABEL_CODES.spam ? 'spam' : 'ham',
      part,
      name: bytes.toString('utf8', ABOUT.name, ABOUT.name + (bytes[ABOUT.length] ?? 0)),
      fingerprint: bytes.toString('hex', ABOUT.fingerprint, ABOUT.length),
    }
  }
}

/** Fewer equal octets than this are no likeness that anybody asks for. */
const EQUAL_LEAST = 20

/** One octet of two different minima is equal by chance once in 256 times. */
function partOf(equal: number): number {
  const byChance = 1 / 256
  return Math.max(0, (equal / SIGNATURE_BYTES - byChance) / (1 - byChance))
}

function equalOctets(signatures: Uint8Array, from: number, signature: Uint8Array): number {
  let equal = 0
  for (let at = 0; at < SIGNATURE_BYTES; at += 1) {
    if (signatures[from + at] === signature[at]) equal += 1
    // Most are not alike at all, which the first quarter tells: 1 in 1,000 alike ones is missed.
    else if (at === 15 && equal === 0) return 0
  }
  return equal
}

/** The same on every node, in whatever order they were learnt. */
function isCloser(one: Likeness, other: Likeness): boolean {
  return one.part > other.part || (one.part === other.part && one.fingerprint < other.fingerprint)
}

/** In place of a file that cannot be read: what asks it is unknown. */
class NoModel implements Model {
  readonly #cause: string

  constructor(cause: string) {
    this.#cause = cause
  }

  samples(): Counts {
    throw new Error(this.#cause)
  }

  count(): Counts {
    throw new Error(this.#cause)
  }

  packed(): number {
    throw new Error(this.#cause)
  }

  alike(): readonly Likeness[] {
    throw new Error(this.#cause)
  }
}

const PROT_READ = 1
const MAP_SHARED = 1
const ADDRESS_MAX = 2 ** 48

/**
 * Opens files of counts. Made before the walls of the process stand: afterwards no library can be
 * opened. (`Bun.mmap` opens for writing, which the walls refuse.)
 */
export class ModelFiles {
  readonly #c = dlopen('libc.so.6', {
    mmap: { args: ['ptr', 'u64', 'i32', 'i32', 'i32', 'i64'], returns: 'ptr' },
    munmap: { args: ['ptr', 'u64'], returns: 'i32' },
  }).symbols
  #path: string | null = null
  #buffer: ArrayBuffer | null = null
  #model: Model | null = null

  /**
   * The same one as long as the path is the same; null without a path. Of a file that cannot be
   * read, one that throws whatever it is asked.
   */
  at(path: string | null): Model | null {
    if (path === this.#path) return this.#model
    this.#close()
    this.#path = path
    if (path === null) return null
    try {
      this.#buffer = this.#map(path)
      this.#model = new LearntModel(this.#buffer)
    } catch (error) {
      this.#model = new NoModel(messageOf(error))
    }
    return this.#model
  }

  #map(path: string): ArrayBuffer {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
    try {
      const { size } = fstatSync(fd)
      const at = this.#c.mmap(null, size, PROT_READ, MAP_SHARED, fd, 0)
      // MAP_FAILED is the last address of all.
      if (at === null || Number(at) > ADDRESS_MAX) {
        throw new Error('the file of what was learnt cannot be mapped')
      }
      return toArrayBuffer(at, 0, size)
    } finally {
      closeSync(fd)
    }
  }

  /** Nothing reads it any more: one message at a time is looked at. */
  #close(): void {
    if (this.#buffer !== null) this.#c.munmap(ptr(this.#buffer), this.#buffer.byteLength)
    this.#buffer = null
    this.#model = null
    this.#path = null
  }
}
