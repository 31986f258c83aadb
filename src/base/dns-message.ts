/**
 * Questions to name servers as octets, and what their answers say (RFC 1035). Pure. The format is
 * read by dns-packet: pointers go backwards only, names end at 254 octets. What it cannot read
 * throws, and is no answer.
 */
import type { DecodedPacket } from 'dns-packet'
import { messageOf } from './errors.ts'
import type { DnsAnswer, DnsQuestion } from './names.ts'

/** Loaded with the first question: a megabyte that a node without questions does not need. */
function codec(): typeof import('dns-packet') {
  return require('dns-packet')
}

/** Octets of an answer by datagram that is never cut on its way (DNS flag day 2020). */
const DATAGRAM_BYTES = 1_232
/** Records of one answer; more is an attack or a mistake, and nobody knows which ones count. */
const RECORDS_MAX = 100
/** Characters of the records of one answer together (faults.md G09). */
const RECORD_CHARS_MAX = 10 * 1024
/** Names that lead on to another one. */
const CNAMES_MAX = 8
/** RFC 1035 section 4.1: the header; a record of the root without data. */
const HEADER_BYTES = 12
const RECORD_BYTES_MIN = 11
/** Records of all sections together that are read at all. */
const COUNTED_MAX = 500
const NAME_ERROR = 3
const FORMAT_ERROR = 1
const NOT_IMPLEMENTED = 4
const CODES: Readonly<Record<number, string>> = {
  1: 'it cannot read the question',
  2: 'SERVFAIL',
  4: 'it does not know such questions',
  5: 'REFUSED',
}

export type Heard =
  /** It lives this long, ms, as its server says; null: the server does not say. */
  | { readonly kind: 'answer'; readonly answer: DnsAnswer; readonly ttlMs: number | null }
  | { readonly kind: 'truncated' }
  /** Not an answer to this question: of somebody else, or forged. */
  | { readonly kind: 'foreign' }
  /** The server answers, and knows nothing. `plain`: it may do without EDNS. */
  | { readonly kind: 'refusal'; readonly cause: string; readonly plain: boolean }

/** In lower case, without the dot at its end; null: no such name can exist (RFC 1035 section 2.3.4). */
export function plainName(name: string): string | null {
  const plain = (name.endsWith('.') ? name.slice(0, -1) : name).toLowerCase()
  const isGood =
    plain.length >= 1 &&
    plain.length <= 253 &&
    /^[\x21-\x7e]+$/.test(plain) &&
    plain.split('.').every((label) => label.length >= 1 && label.length <= 63)
  return isGood ? plain : null
}

/** `withEdns`: says how long an answer may be (RFC 6891); a few old servers cannot read that. */
export function questionBytes(
  { name, type }: DnsQuestion,
  id: number,
  withEdns: boolean,
): Uint8Array {
  const { encode, RECURSION_DESIRED } = codec()
  return encode({
    type: 'query',
    id,
    flags: RECURSION_DESIRED,
    questions: [{ name, type, class: 'IN' }],
    additionals: withEdns
      ? [
          {
            type: 'OPT',
            name: '.',
            udpPayloadSize: DATAGRAM_BYTES,
            extendedRcode: 0,
            ednsVersion: 0,
            flags: 0,
            flag_do: false,
            options: [],
          },
        ]
      : [],
  })
}

/**
 * What a server says that has these texts and nothing else; null: `bytes` cannot be read, or ask
 * nothing. `textOf`: a name in lower case; null: it does not exist.
 */
export function answerBytes(
  bytes: Uint8Array,
  textOf: (name: string) => string | null,
  ttlSeconds: number,
): Uint8Array | null {
  const { encode, AUTHORITATIVE_ANSWER } = codec()
  let asked: DecodedPacket
  try {
    asked = decoded(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
  } catch {
    return null
  }
  const [question] = asked.questions ?? []
  if (question === undefined) return null
  const { name } = question
  const text = textOf(name.toLowerCase())
  return encode({
    type: 'response',
    ...(asked.id === undefined ? {} : { id: asked.id }),
    flags: AUTHORITATIVE_ANSWER | (text === null ? NAME_ERROR : 0),
    questions: [question],
    answers:
      text === null || question.type !== 'TXT'
        ? []
        : [{ type: 'TXT', class: 'IN', name, ttl: ttlSeconds, data: text }],
  })
}

/** What `bytes` say to the question with this id. Never throws. */
export function readAnswer(bytes: Uint8Array, asked: DnsQuestion, id: number): Heard {
  let packet: DecodedPacket
  try {
    packet = decoded(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
  } catch (error) {
    // With our id it is of the server that was asked: another one may do better.
    return idOf(bytes) === id
      ? { kind: 'refusal', cause: `its answer cannot be read: ${messageOf(error)}`, plain: false }
      : { kind: 'foreign' }
  }
  const [question, ...more] = packet.questions ?? []
  const isOurs =
    packet.id === id &&
    packet.flag_qr &&
    more.length === 0 &&
    question !== undefined &&
    question.type === asked.type &&
    question.name.toLowerCase() === asked.name
  const code = (packet.flags ?? 0) & 15
  if (!isOurs) {
    // A server that cannot read the question may not repeat it.
    const isBare = packet.id === id && packet.flag_qr && question === undefined
    return isBare && code === FORMAT_ERROR ? refusal(code) : { kind: 'foreign' }
  }
  if (packet.flag_tc) return { kind: 'truncated' }
  if (code !== 0 && code !== NAME_ERROR) return refusal(code)
  return recordsOf(packet, asked)
}

/**
 * The library believes the counts of the header, and a text that goes on past the end: both are
 * looked at here, before and after. @throws on anything that is not one whole message
 */
function decoded(bytes: Buffer): DecodedPacket {
  if (bytes.length < HEADER_BYTES) throw new Error('it is too short')
  const counted = [6, 8, 10].reduce((sum, at) => sum + bytes.readUInt16BE(at), 0)
  if (bytes.readUInt16BE(4) > 1 || counted > COUNTED_MAX) throw new Error('it has too many records')
  if (HEADER_BYTES + counted * RECORD_BYTES_MIN > bytes.length) throw new Error('it is cut off')
  const { decode } = codec()
  const packet = decode(bytes)
  if (!(decode.bytes <= bytes.length)) throw new Error('it is cut off')
  return packet
}

function refusal(code: number): Heard {
  const plain = code === FORMAT_ERROR || code === NOT_IMPLEMENTED
  return { kind: 'refusal', cause: CODES[code] ?? `code ${code}`, plain }
}

function idOf(bytes: Uint8Array): number {
  return ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0)
}

/** The records of the name, by way of those that it leads to. */
function recordsOf(packet: DecodedPacket, asked: DnsQuestion): Heard {
  const answers = packet.answers ?? []
  let name = asked.name
  let ttl = Number.POSITIVE_INFINITY
  const known = new Set([name])
  for (;;) {
    const owned = answers.filter((answer) => answer.name.toLowerCase() === name)
    const records = owned.filter((answer) => answer.type === asked.type)
    for (const record of owned) if ('ttl' in record) ttl = Math.min(ttl, record.ttl ?? 0)
    if (records.length > 0) return found(records, asked, ttl)
    const [alias] = owned.flatMap((answer) => (answer.type === 'CNAME' ? [answer.data] : []))
    if (alias === undefined) break
    name = alias.toLowerCase()
    if (known.has(name)) return failure(`${asked.name} leads back to itself`)
    known.add(name)
    if (known.size > CNAMES_MAX)
      return failure(`${asked.name} leads on more than ${CNAMES_MAX} times`)
  }
  // RFC 2308 section 5.
  for (const record of packet.authorities ?? []) {
    if (record.type !== 'SOA') continue
    const negative = Math.min(record.ttl ?? 0, record.data.minimum ?? 0, ttl)
    return { kind: 'answer', answer: { status: 'absent' }, ttlMs: negative * 1_000 }
  }
  return { kind: 'answer', answer: { status: 'absent' }, ttlMs: null }
}

function failure(cause: string): Heard {
  return { kind: 'answer', answer: { status: 'failed', cause }, ttlMs: null }
}

type DnsRecord = NonNullable<DecodedPacket['answers']>[number]

function found(records: readonly DnsRecord[], { name }: DnsQuestion, ttl: number): Heard {
  if (records.length > RECORDS_MAX) return failure(`${name} has more than ${RECORDS_MAX} records`)
  const texts = records.map(textOf)
  if (texts.reduce((sum, text) => sum + text.length, 0) > RECORD_CHARS_MAX) {
    return failure(`the records of ${name} are larger than ${RECORD_CHARS_MAX} characters`)
  }
  // Servers turn them round from answer to answer: in order they read the same everywhere.
  const answer: DnsAnswer = { status: 'found', records: [...new Set(texts)].sort() }
  return { kind: 'answer', answer, ttlMs: ttl * 1_000 }
}

function textOf(record: DnsRecord): string {
  switch (record.type) {
    case 'A':
    case 'AAAA':
      return record.data.toLowerCase()
    case 'PTR':
      return undotted(record.data)
    case 'MX':
      return `${record.data.preference ?? 0} ${undotted(record.data.exchange)}`
    case 'TXT': {
      const pieces = Array.isArray(record.data) ? record.data : [record.data]
      return pieces.map((piece) => Buffer.from(piece).toString('latin1')).join('')
    }
    default:
      return ''
  }
}

function undotted(name: string): string {
  return name.endsWith('.') ? name.slice(0, -1) : name
}
