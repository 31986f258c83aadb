/**
 * The parts of a message within bounds (RFC 2045, RFC 2046), parsed once and shared by all inspectors:
 * the one tree of the standard with its hash, and what other readers would see beside it.
 * Only inspector processes use it: the main process never parses MIME.
 */
import { readCms } from './cms.ts'
import { digestOf } from './digest.ts'
import { enclosedFiles } from './enclosed.ts'
import type { Header } from './header.ts'
import type { Decoded } from './transfer.ts'
import {
  decodeContent,
  EMPTY_HEADER,
  isFile,
  MIME_BOUNDS,
  type MimeBounds,
  type MimeFlaw,
  type Part,
  Walk,
} from './walk.ts'

export { MIME_BOUNDS, type MimeBounds, type MimeFlaw, type Part } from './walk.ts'

/** One message, parsed once and shared by all inspectors. */
export class Mail {
  readonly raw: Buffer
  /** In the order of the message; the first one is the message itself. */
  readonly parts: readonly Part[]
  /** Parts that hold content of their own. */
  readonly leaves: readonly Part[]
  readonly flaws: readonly MimeFlaw[]
  readonly #bounds: MimeBounds
  readonly #contents = new Map<Part, readonly Buffer[]>()
  #keptBytes = 0
  /** What is too large to be kept with the others, until the next such one: all inspectors ask for it in turn. */
  #large: { readonly part: Part; readonly contents: readonly Buffer[] } | null = null
  #encrypted = false
  #tree: string | null = null

  constructor(raw: Uint8Array, bounds: MimeBounds = MIME_BOUNDS) {
    this.raw = Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength)
    this.#bounds = bounds
    const walk = new Walk(bounds)
    walk.run(this.raw)
    // What is opened may add parts, and they are opened too.
    for (let index = 0; index < walk.parts.length; index += 1) {
      const part = walk.parts[index]
      if (part !== undefined) this.#open(part, walk)
    }
    this.parts = walk.parts
    this.leaves = walk.parts.filter((part) => !part.container)
    this.flaws = walk.flaws
  }

  /** A part is encrypted: nobody looks into it. */
  get encrypted(): boolean {
    return this.#encrypted
  }

  /** Header of the message itself. */
  get header(): Header {
    const root = this.parts[0]
    return root === undefined ? EMPTY_HEADER : root.header
  }

  /** The decoded content in every reading, the most common first; more than one only where it is doubtful. */
  contents(part: Part): readonly Buffer[] {
    if (this.#large?.part === part) return this.#large.contents
    return this.#contents.get(part) ?? this.#decode(part).contents
  }

  /**
   * SHA-256, hex, of the one tree: of each part the depth, type, encoding, disposition and names, of
   * each leaf the content, a large one by its digest. Equal for equal bytes, whoever parses them.
   */
  get tree(): string {
    if (this.#tree !== null) return this.#tree
    const hasher = new Bun.CryptoHasher('sha256')
    for (const part of this.parts) {
      if (part.view !== 'strict') continue
      const { depth, type, encodings, disposition, names, container } = part
      // No line of a header holds a line end, names may.
      const list = names.length === 0 ? '' : JSON.stringify(names)
      const content = container ? EMPTY : (this.contents(part)[0] ?? EMPTY)
      hasher.update(
        `${depth}\n${type}\n${encodings[0]}\n${disposition}\n${list}\n${container ? '' : content.length}\n`,
      )
      if (!container) hasher.update(content.length > DIGEST_BYTES ? digestOf(content) : content)
    }
    this.#tree = hasher.digest('hex')
    return this.#tree
  }

  /** Decodes a leaf: what its encoding hides is a flaw, what it encloses are parts. */
  #open(part: Part, walk: Walk): void {
    this.#encrypted ||= ENCRYPTED.test(part.type)
    if (part.container) return
    const { contents, sound } = this.#decode(part)
    const { encodings } = part
    // A doubtful encoding is malformed in all readings but one.
    const certain = encodings.length === 1
    if (!sound && certain && part.view === 'strict' && isFile(part)) {
      walk.flaw('ambiguous', 'The encoding of an attached file is malformed.')
    }
    const text = !certain || encodings[0] === 'uuencode' || WRAPPERS.test(part.type)
    for (const content of contents) {
      const { files, broken } = enclosedFiles(content, text)
      for (const file of files) walk.enclose(part, file)
      if (broken && certain)
        walk.flaw('ambiguous', 'A file inside the text is malformed or too large.')
      const cms = readCms(content)
      if (cms?.message) walk.unwrap(part, cms.message)
      this.#encrypted ||= cms?.message === null || (text && content.includes(PGP))
    }
  }

  #decode(part: Part): Decoded {
    const { encodings } = part
    const [first = 'identity'] = encodings
    let { contents, sound } = decodeContent(part, first)
    for (let index = 1; index < encodings.length; index += 1) {
      const more = decodeContent(part, encodings[index] ?? 'identity')
      contents = [...contents, ...more.contents]
      sound &&= more.sound
    }
    const bytes = contents.reduce((sum, content) => sum + content.length, 0)
    if (this.#keptBytes + bytes <= this.#bounds.keptBytesMax) {
      this.#keptBytes += bytes
      this.#contents.set(part, contents)
    } else this.#large = { part, contents }
    return { contents, sound }
  }
}

const EMPTY = Buffer.of()
/** Above it a content is hashed by itself, for others ask for that too. */
const DIGEST_BYTES = 16 * 1024

/** Types whose content may hold files between its lines. */
const WRAPPERS = /^text\/|binhex|uu|yenc/

/** Types that say so themselves (RFC 1847, RFC 3156). */
const ENCRYPTED = /^(?:multipart\/encrypted|application\/pgp-encrypted)$/
const PGP = Buffer.from('-----BEGIN PGP MESSAGE-----')
