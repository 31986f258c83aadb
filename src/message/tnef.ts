/**
 * TNEF, the `winmail.dat` of Outlook ([MS-OXTNEF]): its attachments, and the bodies that it carries
 * beside the text. Bounded, never throws: what is malformed or too much is said as `broken`.
 */
/** `names`: the short one, the long one; none for a body. */
export type TnefFile = { readonly names: readonly string[]; readonly content: Buffer }

const SIGNATURE = 0x223e9f78
/** Messages in messages. */
const DEPTH_MAX = 5
const FILES_MAX = 200

/** Attributes of [MS-OXTNEF] section 2.1.3.3, without their type. */
const ATTACH_DATA = 0x800f
const ATTACH_TITLE = 0x8010
const ATTACH_START = 0x9002
const MESSAGE_PROPS = 0x9003
const ATTACH_PROPS = 0x9005
const BODY = 0x800c
/** Properties of [MS-OXPROPS]. */
const PROP_DATA = 0x3701
const PROP_NAME = 0x3704
const PROP_LONG_NAME = 0x3707
const PROP_BODY = 0x1000
const PROP_RTF = 0x1009
const PROP_HTML = 0x1013

export function looksLikeTnef(bytes: Buffer): boolean {
  return bytes.length > 6 && bytes[0] === 0x78 && bytes.readUInt32LE(0) === SIGNATURE
}

export function readTnef(bytes: Buffer): {
  readonly files: readonly TnefFile[]
  readonly broken: boolean
} {
  const reader = new Reader()
  reader.stream(bytes, 0)
  return reader
}

type Attached = { readonly names: string[]; content: Buffer | null }

class Reader {
  readonly files: TnefFile[] = []
  broken = false

  stream(bytes: Buffer, depth: number): void {
    if (depth > DEPTH_MAX) {
      this.broken = true
      return
    }
    let attached: Attached | null = null
    let at = 6
    while (at + 11 <= bytes.length) {
      const id = bytes.readUInt16LE(at + 1)
      const start = at + 9
      const end = start + bytes.readUInt32LE(at + 5)
      if (end > bytes.length) this.broken = true
      const data = bytes.subarray(start, end)
      if (id === ATTACH_START) {
        this.#end(attached)
        attached = { names: [], content: null }
      } else if (id === ATTACH_TITLE || id === ATTACH_DATA || id === ATTACH_PROPS) {
        // Readers differ on data before its start mark: it is a file all the same.
        attached ??= { names: [], content: null }
        if (id === ATTACH_TITLE) attached.names.push(text(data))
        else if (id === ATTACH_DATA) attached.content = data
        else this.#attachProps(data, attached, depth)
      } else if (id === BODY) this.#add([], data)
      else if (id === MESSAGE_PROPS) this.#messageProps(data)
      at = end + 2
    }
    if (at < bytes.length) this.broken = true
    this.#end(attached)
  }

  #end(attached: Attached | null): void {
    if (attached?.content) this.#add(attached.names, attached.content)
  }

  #add(names: readonly string[], content: Buffer): void {
    if (content.length === 0) return
    if (this.files.length < FILES_MAX) this.files.push({ names, content })
    else this.broken = true
  }

  #attachProps(data: Buffer, attached: Attached, depth: number): void {
    this.#properties(data, (id, value) => {
      if (id === PROP_LONG_NAME || id === PROP_NAME) attached.names.push(text(value))
      else if (id === PROP_DATA) {
        // Behind the id of its interface stands the message, in TNEF again.
        const inner = value.subarray(16)
        if (looksLikeTnef(inner)) this.stream(inner, depth + 1)
        else this.#add(attached.names, value)
      }
    })
  }

  #messageProps(data: Buffer): void {
    this.#properties(data, (id, value) => {
      if (id === PROP_BODY || id === PROP_HTML || id === PROP_RTF) this.#add([], value)
    })
  }

  /** [MS-OXTNEF] section 2.1.3.4: each property of variable size goes to `take`. */
  #properties(data: Buffer, take: (id: number, value: Buffer) => void): void {
    const words = new Words(data)
    const count = words.next()
    for (let index = 0; index < count && !words.over; index += 1) {
      const tag = words.next()
      const type = tag & 0xffff
      const id = tag >>> 16
      if (id >= 0x8000) {
        words.skip(16)
        const named = words.next()
        if (named === 0) words.skip(4)
        else words.skip(words.next())
      }
      const many = (type & 0x1000) !== 0
      const size = FIXED.get(type & 0xfff)
      const values = many || size === undefined ? words.next() : 1
      for (let each = 0; each < values && !words.over; each += 1) {
        if (size === undefined) take(id, words.take(words.next()))
        else words.skip(size)
      }
    }
    if (words.over) this.broken = true
  }
}

/** Octets of a value by its type, filled up to four; other types say their size. */
const FIXED: ReadonlyMap<number, number> = new Map([
  [0x0002, 4],
  [0x0003, 4],
  [0x0004, 4],
  [0x0005, 8],
  [0x0006, 8],
  [0x0007, 8],
  [0x000a, 4],
  [0x000b, 4],
  [0x0014, 8],
  [0x0040, 8],
  [0x0048, 16],
])

/** Little-endian words and what stands between them, each filled up to four octets. */
class Words {
  /** More was asked for than there is. */
  over = false
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  next(): number {
    if (this.#at + 4 > this.#bytes.length) {
      this.over = true
      return 0
    }
    this.#at += 4
    return this.#bytes.readUInt32LE(this.#at - 4)
  }

  skip(size: number): void {
    this.#at += Math.ceil(size / 4) * 4
    if (this.#at > this.#bytes.length) this.over = true
  }

  take(size: number): Buffer {
    const value = this.#bytes.subarray(this.#at, this.#at + size)
    this.skip(size)
    return value
  }
}

/** Up to its NUL; UTF-16 when every other octet of the begin is one. */
function text(bytes: Buffer): string {
  const wide = bytes.length >= 4 && bytes[1] === 0 && bytes[3] === 0
  const whole = wide ? bytes.toString('utf16le') : bytes.toString('latin1')
  const nul = whole.indexOf('\0')
  return nul === -1 ? whole : whole.slice(0, nul)
}
