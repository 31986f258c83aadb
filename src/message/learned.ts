/**
 * What is learnt of a message, and the file of counts that is made of all that was learnt: its
 * layout, known to the store that writes it and to the inspectors that read it. Pure.
 *
 * The file, all little endian: a header of 16 words; slots of two words, the token and its counts
 * (spam in the low half, ham in the high one), open addressing; signatures; what belongs to each.
 */

/** Samples of another way to make tokens are kept and not counted: nothing would match them. */
export const SAMPLE_VERSION = 1
/** Distinct tokens of one message. */
export const TOKENS_MAX = 2_000
/** Octets of a signature: of each group of shingles one octet of the least hash. */
export const SIGNATURE_BYTES = 64
export const SUBJECT_CHARS_MAX = 120

export type Label = 'spam' | 'ham'

export type Counts = { readonly spam: number; readonly ham: number }

/** What an inspector process makes of a message, to learn it. */
export type Sample = {
  /** 32 lowercase hex digits: the same for one message on every way that it may take. */
  readonly fingerprint: string
  /** Ascending, distinct, none 0. */
  readonly tokens: Uint32Array
  /** SIGNATURE_BYTES octets; null: too short to be known again when it changes. */
  readonly signature: Uint8Array | null
  /** One line for people, at most SUBJECT_CHARS_MAX. */
  readonly subject: string
}

/** Any 32 bits as a token, well mixed (the end of MurmurHash3); 0 marks a free slot. */
export function tokenOf(hash: number): number {
  let mixed = hash ^ (hash >>> 16)
  mixed = Math.imul(mixed, 0x85eb_ca6b)
  mixed ^= mixed >>> 13
  mixed = Math.imul(mixed, 0xc2b2_ae35)
  mixed ^= mixed >>> 16
  return mixed >>> 0 || 1
}

/** The token as it is counted for mail to one domain. */
export function tokenOfDomain(token: number, domain: number): number {
  return tokenOf(Math.imul(token, 0x9e37_79b1) ^ domain)
}

/** Stands for the samples of a domain themselves. */
export const ANY_TOKEN = 0

/** 32 bits of a text (FNV-1a over its UTF-16 units). */
export function hashOfText(text: string, seed = 0x811c_9dc5): number {
  let hash = seed
  for (let at = 0; at < text.length; at += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x0100_0193)
  }
  return hash >>> 0
}

const MAGIC = 0x316c_7470
const HEADER_WORDS = 16
/** Places of the header. */
export const HEAD = {
  magic: 0,
  version: 1,
  /** Slots, a power of two. */
  slots: 2,
  /** Room for so many signatures. */
  room: 3,
  /** Of which so many are in use. */
  known: 4,
  spam: 5,
  ham: 6,
} as const

/** Beside each signature: label, fingerprint (16 octets), length of the name, name in UTF-8. */
export const ABOUT_BYTES = 212
export const ABOUT = { label: 0, fingerprint: 4, length: 20, name: 21 } as const
export const NAME_BYTES_MAX = ABOUT_BYTES - ABOUT.name
export const LABEL_CODES: Readonly<Record<Label, number>> = { spam: 1, ham: 2 }

/** The whole file as memory. */
export type Image = {
  readonly bytes: Uint8Array
  readonly head: Uint32Array
  /** Two words a slot. */
  readonly slots: Uint32Array
  readonly signatures: Uint8Array
  readonly about: Uint8Array
}

function imageBytes(slots: number, room: number): number {
  return 4 * (HEADER_WORDS + 2 * slots) + room * (SIGNATURE_BYTES + ABOUT_BYTES)
}

/** An empty one. */
export function newImage(slots: number, room: number): Image {
  const words = new Uint32Array(imageBytes(slots, room) / 4)
  words[HEAD.magic] = MAGIC
  words[HEAD.version] = SAMPLE_VERSION
  words[HEAD.slots] = slots
  words[HEAD.room] = room
  return partsOf(words.buffer)
}

/** Null: it is no such file, or one of another version. */
export function readImage(buffer: ArrayBuffer): Image | null {
  if (buffer.byteLength < 4 * HEADER_WORDS) return null
  const head = new Uint32Array(buffer, 0, HEADER_WORDS)
  const [magic, version, slots = 0, room = 0] = head
  if (magic !== MAGIC || version !== SAMPLE_VERSION) return null
  if (slots === 0 || (slots & (slots - 1)) !== 0) return null
  return imageBytes(slots, room) === buffer.byteLength ? partsOf(buffer) : null
}

function partsOf(buffer: ArrayBuffer): Image {
  const head = new Uint32Array(buffer, 0, HEADER_WORDS)
  const [slots = 0, room = 0] = [head[HEAD.slots], head[HEAD.room]]
  const signaturesAt = 4 * (HEADER_WORDS + 2 * slots)
  return {
    bytes: new Uint8Array(buffer),
    head,
    slots: new Uint32Array(buffer, 4 * HEADER_WORDS, 2 * slots),
    signatures: new Uint8Array(buffer, signaturesAt, room * SIGNATURE_BYTES),
    about: new Uint8Array(buffer, signaturesAt + room * SIGNATURE_BYTES),
  }
}

/** Place of the token in `slots`, or of the free slot where it would be. Some slot is free. */
export function placeOf(slots: Uint32Array, token: number): number {
  const mask = slots.length - 1
  let at = (token * 2) & mask
  for (;;) {
    const found = slots[at]
    if (found === token || found === 0) return at
    at = (at + 2) & mask
  }
}

/** A sample as JSON: octets as base64, the tokens four little-endian ones each. */
export type SampleText = {
  readonly fingerprint: string
  readonly tokens: string
  readonly signature: string | null
  readonly subject: string
}

export function writeSample({ fingerprint, tokens, signature, subject }: Sample): SampleText {
  const bytes = Buffer.alloc(4 * tokens.length)
  for (const [index, token] of tokens.entries()) bytes.writeUInt32LE(token, 4 * index)
  return {
    fingerprint,
    tokens: bytes.toString('base64'),
    signature: signature === null ? null : Buffer.from(signature).toString('base64'),
    subject,
  }
}

/** Null: it is none. Tokens that are not ascending would not be forgotten as they are counted. */
export function readSample(raw: Readonly<Record<string, unknown>>): Sample | null {
  const { fingerprint, tokens, signature, subject } = raw
  if (typeof fingerprint !== 'string' || !/^[0-9a-f]{32}$/.test(fingerprint)) return null
  const read = readTokens(tokens)
  const octets = typeof signature === 'string' ? Buffer.from(signature, 'base64') : null
  if (read === null || (octets !== null && octets.length !== SIGNATURE_BYTES)) return null
  return {
    fingerprint,
    tokens: read,
    signature: octets,
    subject: typeof subject === 'string' ? subject.slice(0, SUBJECT_CHARS_MAX) : '',
  }
}

function readTokens(text: unknown): Uint32Array | null {
  if (typeof text !== 'string' || text.length > 6 * TOKENS_MAX) return null
  const bytes = Buffer.from(text, 'base64')
  const tokens = new Uint32Array(Math.floor(bytes.length / 4))
  if (tokens.length > TOKENS_MAX) return null
  let before = 0
  for (let index = 0; index < tokens.length; index += 1) {
    const token = bytes.readUInt32LE(4 * index)
    if (token <= before) return null
    tokens[index] = token
    before = token
  }
  return tokens
}
