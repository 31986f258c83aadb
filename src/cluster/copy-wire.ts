/**
 * What two nodes say to each other about copies of mail: the body of MESSAGE.mail, any number of
 * entries one behind the other. An entry: `kind u8 | length u32 | payload`, big endian. All of it
 * goes by the bulk lane of a link, so it arrives in the order in which it was said. Bytes travel
 * as they are, all else as JSON; everything is checked before use.
 */
import { type MessageId, type NodeId, parseMessageId, parseNodeId } from '../base/ids.ts'
import { isCount, isRecord } from '../base/raw.ts'
import {
  type Commit,
  type HolderState,
  isCuts,
  type MarkKind,
  type MarkPayload,
  RECIPIENT_STATES,
} from '../store/queued.ts'
import { MESSAGE_BYTES_MAX } from './contract.ts'
import { blankBytes } from './inbox.ts'
import { parseBody } from './wire.ts'

/** Of an entry before its payload. */
const HEAD_BYTES = 5
const MID_BYTES = 26
/** A message and a term of it. */
const NAME_BYTES = MID_BYTES + 4
/** Of a COMMIT in one entry; a longer one is told in parts. */
const PART_BYTES_MAX = 256 * 1024
/** Of one COMMIT in all its parts: the spool takes no longer record. */
export const COMMIT_BYTES_MAX = 15 * 1024 * 1024
/** Of the bytes of a body in one entry: at least a piece of the spool, of any version. */
const PIECE_BYTES_MAX = 64 * 1024
/** As many recipients as one mark may name. */
const INDEXES_MAX = 1_000_000
const TERM_MAX = 0xffff_ffff
const NODES_MAX = 1_024
const LINE_CHARS_MAX = 4_096
const MARKS_MAX = 20_000

/** A copy of a message, of this term. */
export type Named = { readonly id: MessageId; readonly term: number }

export type Mark = Named & { readonly kind: MarkKind; readonly payload: MarkPayload }

/** Who else has it, as its owner knows. */
export type Holding = Named & { readonly holders: readonly (readonly [NodeId, HolderState])[] }

/** Why a copy was not taken; `stale`: another node owns the message now. */
export const REFUSALS = ['busy', 'room', 'gap', 'stale', 'store'] as const
export type CopyRefusal = (typeof REFUSALS)[number]

export type Refused = Named & {
  readonly why: CopyRefusal
  /** In words, for the log. */
  readonly detail: string
  /** With `stale`: who owns it, with the term of this entry. */
  readonly owner: NodeId | null
}

/** What an owner says of its mail, and what a holder answers. */
export type Entry =
  /** The next bytes of a body, from index 0. */
  | {
      readonly kind: 'piece'
      readonly id: MessageId
      readonly index: number
      readonly bytes: Uint8Array
    }
  /** JSON of a COMMIT that is too long for one entry; more follows. */
  | { readonly kind: 'part'; readonly id: MessageId; readonly json: Uint8Array }
  /** The end of a body: the last JSON, how many pieces came before, and the last bytes. */
  | {
      readonly kind: 'commit'
      readonly id: MessageId
      readonly pieces: number
      readonly json: Uint8Array
      readonly last: Uint8Array
    }
  /** No COMMIT follows: the pieces are void. */
  | { readonly kind: 'abort'; readonly id: MessageId }
  /** The numbers count what is to be acknowledged on this link. */
  | { readonly kind: 'marks'; readonly number: number; readonly marks: readonly Mark[] }
  | { readonly kind: 'discard'; readonly number: number; readonly names: readonly Named[] }
  | { readonly kind: 'holders'; readonly number: number; readonly holdings: readonly Holding[] }
  // From the holder:
  | { readonly kind: 'kept'; readonly names: readonly Named[] }
  | { readonly kind: 'refused'; readonly refused: Refused }
  /** All up to this number is durable. */
  | { readonly kind: 'told'; readonly number: number }
  /** So many bytes of pieces are in the files: as many more may come. */
  | { readonly kind: 'credit'; readonly bytes: number }
  /** What it has of the one that it tells, when a link opens. */
  | { readonly kind: 'have'; readonly names: readonly Named[] }

/** The numbers are the wire's. A later version may have more: they are passed over. */
const KINDS = [
  'piece',
  'part',
  'commit',
  'abort',
  'marks',
  'discard',
  'holders',
  'kept',
  'refused',
  'told',
  'credit',
  'have',
] as const satisfies readonly Entry['kind'][]

const ENCODER = new TextEncoder()
const NO_BYTES = new Uint8Array(0)

// ---- writing ----

/** Memory of this length, to be filled. */
export type Memory = (length: number) => Uint8Array

/**
 * Into memory of its own, or what `memory` gives.
 * @throws never; entries of more than MESSAGE_BYTES_MAX are the caller's fault
 */
export function encodeEntry(entry: Entry, memory: Memory = blankBytes): Uint8Array {
  switch (entry.kind) {
    case 'piece': {
      const length = MID_BYTES + 4 + entry.bytes.length
      const { bytes, view, at } = begin(memory, 'piece', length, entry.id)
      view.setUint32(at, entry.index)
      bytes.set(entry.bytes, at + 4)
      return bytes
    }
    case 'part': {
      const { bytes, at } = begin(memory, 'part', MID_BYTES + entry.json.length, entry.id)
      bytes.set(entry.json, at)
      return bytes
    }
    case 'commit': {
      const { json, last } = entry
      const length = MID_BYTES + 8 + json.length + last.length
      const { bytes, view, at } = begin(memory, 'commit', length, entry.id)
      view.setUint32(at, entry.pieces)
      view.setUint32(at + 4, json.length)
      bytes.set(json, at + 8)
      bytes.set(last, at + 8 + json.length)
      return bytes
    }
    case 'abort':
      return begin(memory, 'abort', MID_BYTES, entry.id).bytes
    case 'marks': {
      const marks = entry.marks.map(({ id, term, kind, payload }) => [id, term, kind, payload])
      return numbered(memory, 'marks', entry.number, marks)
    }
    case 'holders': {
      const holdings = entry.holdings.map(({ id, term, holders }) => [id, term, holders])
      return numbered(memory, 'holders', entry.number, holdings)
    }
    case 'discard': {
      const { bytes, view, at } = begin(memory, 'discard', 4 + entry.names.length * NAME_BYTES)
      view.setUint32(at, entry.number)
      writeNames(bytes, view, at + 4, entry.names)
      return bytes
    }
    case 'kept':
    case 'have': {
      const { bytes, view, at } = begin(memory, entry.kind, entry.names.length * NAME_BYTES)
      writeNames(bytes, view, at, entry.names)
      return bytes
    }
    case 'refused': {
      const { id, term, why, detail, owner } = entry.refused
      const json = ENCODER.encode(
        JSON.stringify({ i: id, t: term, w: why, d: detail, o: owner ?? undefined }),
      )
      const { bytes, at } = begin(memory, 'refused', json.length)
      bytes.set(json, at)
      return bytes
    }
    case 'told':
    case 'credit': {
      const { bytes, view, at } = begin(memory, entry.kind, 4)
      view.setUint32(at, entry.kind === 'told' ? entry.number : entry.bytes)
      return bytes
    }
  }
}

/** JSON of a COMMIT, as its entries carry it. */
export function encodeCommit(commit: Commit): Uint8Array {
  return ENCODER.encode(JSON.stringify(commit))
}

/** A COMMIT and the last bytes of its body: one entry but for a very long envelope. */
export function commitEntries(
  id: MessageId,
  json: Uint8Array,
  pieces: number,
  last: Uint8Array = NO_BYTES,
): readonly Entry[] {
  const entries: Entry[] = []
  let from = 0
  for (; json.length - from > PART_BYTES_MAX; from += PART_BYTES_MAX) {
    entries.push({ kind: 'part', id, json: json.subarray(from, from + PART_BYTES_MAX) })
  }
  entries.push({ kind: 'commit', id, pieces, json: json.subarray(from), last })
  return entries
}

function begin(
  memory: Memory,
  kind: Entry['kind'],
  length: number,
  id: MessageId | null = null,
): { readonly bytes: Uint8Array; readonly view: DataView; readonly at: number } {
  const bytes = memory(HEAD_BYTES + length)
  const view = viewOf(bytes)
  view.setUint8(0, KINDS.indexOf(kind) + 1)
  view.setUint32(1, length)
  if (id === null) return { bytes, view, at: HEAD_BYTES }
  ENCODER.encodeInto(id, bytes.subarray(HEAD_BYTES, HEAD_BYTES + MID_BYTES))
  return { bytes, view, at: HEAD_BYTES + MID_BYTES }
}

function numbered(
  memory: Memory,
  kind: 'marks' | 'holders',
  number: number,
  value: unknown,
): Uint8Array {
  const json = ENCODER.encode(JSON.stringify({ l: value }))
  const { bytes, view, at } = begin(memory, kind, 4 + json.length)
  view.setUint32(at, number)
  bytes.set(json, at + 4)
  return bytes
}

function writeNames(bytes: Uint8Array, view: DataView, from: number, names: readonly Named[]) {
  let at = from
  for (const { id, term } of names) {
    ENCODER.encodeInto(id, bytes.subarray(at, at + MID_BYTES))
    view.setUint32(at + MID_BYTES, term)
    at += NAME_BYTES
  }
}

// ---- reading ----

/** The entries of a body; bytes are views of it. Null: one of them cannot be read. */
export function readEntries(body: Uint8Array): readonly Entry[] | null {
  const view = new DataView(body.buffer, body.byteOffset, body.length)
  const entries: Entry[] = []
  let at = 0
  while (at < body.length) {
    if (at + HEAD_BYTES > body.length) return null
    const from = at + HEAD_BYTES
    const length = view.getUint32(at + 1)
    if (length > MESSAGE_BYTES_MAX || from + length > body.length) return null
    const kind = KINDS[view.getUint8(at) - 1]
    at = from + length
    if (kind === undefined) continue
    const entry = readEntry(kind, body.subarray(from, at))
    if (entry === null) return null
    entries.push(entry)
  }
  return entries
}

function readEntry(kind: Entry['kind'], payload: Uint8Array): Entry | null {
  switch (kind) {
    case 'piece':
    case 'part':
    case 'commit':
    case 'abort':
      return readOfMessage(kind, payload)
    case 'marks':
    case 'holders':
    case 'discard':
      return readNumbered(kind, payload)
    case 'kept':
    case 'have': {
      const names = readNames(payload)
      return names === null ? null : { kind, names }
    }
    case 'refused': {
      const refused = readRefused(payload)
      return refused === null ? null : { kind, refused }
    }
    case 'told':
    case 'credit': {
      if (payload.length !== 4) return null
      const count = viewOf(payload).getUint32(0)
      return kind === 'told' ? { kind, number: count } : { kind, bytes: count }
    }
  }
}

function readOfMessage(
  kind: 'piece' | 'part' | 'commit' | 'abort',
  payload: Uint8Array,
): Entry | null {
  const id = readMid(payload, 0)
  if (id === null) return null
  const rest = payload.subarray(MID_BYTES)
  if (kind === 'abort') return rest.length === 0 ? { kind, id } : null
  if (kind === 'part') {
    return rest.length === 0 || rest.length > PART_BYTES_MAX ? null : { kind, id, json: rest }
  }
  if (kind === 'piece') {
    if (rest.length <= 4 || rest.length > 4 + PIECE_BYTES_MAX) return null
    return { kind, id, index: viewOf(rest).getUint32(0), bytes: rest.subarray(4) }
  }
  if (rest.length < 8) return null
  const view = viewOf(rest)
  const jsonEnd = 8 + view.getUint32(4)
  if (jsonEnd > rest.length || rest.length - jsonEnd > PIECE_BYTES_MAX) return null
  const [json, last] = [rest.subarray(8, jsonEnd), rest.subarray(jsonEnd)]
  return { kind, id, pieces: view.getUint32(0), json, last }
}

function readNumbered(kind: 'marks' | 'holders' | 'discard', payload: Uint8Array): Entry | null {
  if (payload.length < 4) return null
  const number = viewOf(payload).getUint32(0)
  const rest = payload.subarray(4)
  if (kind === 'discard') {
    const names = readNames(rest)
    return names === null ? null : { kind, number, names }
  }
  const list = parseBody(rest)?.['l']
  if (!Array.isArray(list) || list.length > MARKS_MAX) return null
  if (kind === 'marks') {
    const marks = eachOf(list, readMark)
    return marks === null ? null : { kind, number, marks }
  }
  const holdings = eachOf(list, readHolding)
  return holdings === null ? null : { kind, number, holdings }
}

function readNames(payload: Uint8Array): readonly Named[] | null {
  if (payload.length % NAME_BYTES !== 0) return null
  const view = viewOf(payload)
  const names: Named[] = []
  for (let at = 0; at < payload.length; at += NAME_BYTES) {
    const id = readMid(payload, at)
    const term = view.getUint32(at + MID_BYTES)
    if (id === null || term === 0) return null
    names.push({ id, term })
  }
  return names
}

function readMid(bytes: Uint8Array, at: number): MessageId | null {
  if (bytes.length < at + MID_BYTES) return null
  return parseMessageId(
    Buffer.from(bytes.buffer, bytes.byteOffset + at, MID_BYTES).toString('latin1'),
  )
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

function readRefused(payload: Uint8Array): Refused | null {
  const value = parseBody(payload)
  if (value === null) return null
  const { i, t, w, d, o } = value
  const id = typeof i === 'string' ? parseMessageId(i) : null
  const owner = typeof o === 'string' ? parseNodeId(o) : null
  // A later version may have more reasons.
  const why = REFUSALS.find((known) => known === w) ?? 'busy'
  if (id === null || !isTerm(t) || typeof w !== 'string' || !isLine(d)) return null
  if ((o !== undefined && owner === null) || (why === 'stale' && owner === null)) return null
  return { id, term: t, why, detail: d, owner }
}

const MARK_KINDS: readonly MarkKind[] = ['try', 'done', 'fail', 'defer', 'hold', 'discard']
const HOLDER_STATES: readonly HolderState[] = ['sent', 'kept', 'discarding']

function readMark(value: unknown): Mark | null {
  if (!Array.isArray(value) || value.length < 4) return null
  const [i, term, k, payload] = value as unknown[]
  const id = typeof i === 'string' ? parseMessageId(i) : null
  const kind = MARK_KINDS.find((known) => known === k)
  if (id === null || kind === undefined || !isTerm(term)) return null
  return isPayload(payload) ? { id, term, kind, payload } : null
}

function isPayload(value: unknown): value is MarkPayload {
  if (!isRecord(value)) return false
  const { r, reply, at, in: inMs, attempts, doubt, warned } = value
  return (
    Array.isArray(r) &&
    r.length <= INDEXES_MAX &&
    r.every(isCount) &&
    (reply === undefined || isLine(reply)) &&
    (at === undefined || isNumber(at)) &&
    (inMs === undefined || isNumber(inMs)) &&
    (attempts === undefined || isCount(attempts)) &&
    (doubt === undefined || typeof doubt === 'boolean') &&
    (warned === undefined || typeof warned === 'boolean')
  )
}

function readHolding(value: unknown): Holding | null {
  if (!Array.isArray(value) || value.length < 3) return null
  const [i, term, list] = value as unknown[]
  const id = typeof i === 'string' ? parseMessageId(i) : null
  if (id === null || !isTerm(term) || !Array.isArray(list) || list.length > NODES_MAX) return null
  const holders = eachOf(list as unknown[], (pair) => {
    if (!Array.isArray(pair) || pair.length !== 2) return null
    const [n, s] = pair as unknown[]
    const node = typeof n === 'string' ? parseNodeId(n) : null
    const state = HOLDER_STATES.find((known) => known === s)
    return node === null || state === undefined ? null : ([node, state] as const)
  })
  return holders === null ? null : { id, term, holders }
}

// ---- a COMMIT ----

type Check = (value: unknown) => boolean

/**
 * What a COMMIT of a peer says; null: not one of this message. Fields that this version does not
 * know stay in it: the node that delivers it may.
 */
export function readCommit(id: MessageId, json: Uint8Array): Commit | null {
  const value = parseBody(json)
  if (value === null || !isCommit(value)) return null
  return value.envelope.id === id ? value : null
}

/** Strings are bounded by the COMMIT, lists by those of the envelope. */
function isCommit(
  value: Readonly<Record<string, unknown>>,
): value is Record<string, unknown> & Commit {
  if (!has(value, COMMIT)) return false
  const { envelope, recipients, verdicts } = value as unknown as Commit
  const count = envelope.recipients.length
  return (
    count > 0 && recipients.length === count && (verdicts.length === 0 || verdicts.length === count)
  )
}

function has(value: unknown, fields: readonly (readonly [name: string, check: Check])[]): boolean {
  if (!isRecord(value)) return false
  for (const [name, check] of fields) if (!check(value[name])) return false
  return true
}

function record(fields: Readonly<Record<string, Check>>): Check {
  const entries = Object.entries(fields)
  return (value) => has(value, entries)
}

function list(check: Check): Check {
  return (value) => Array.isArray(value) && value.every(check)
}

function maybe(check: Check): Check {
  return (value) => value === null || check(value)
}

function word(words: readonly (string | null)[]): Check {
  return (value) => words.includes(value as string | null)
}

const isText: Check = (value) => typeof value === 'string'
const isFlag: Check = (value) => typeof value === 'boolean'

const JUDGEMENT = record({
  verdict: isText,
  score: isNumber,
  findings: list(record({ rule: isText, score: isNumber, evidence: isText })),
  unknowns: list(record({ inspector: isText, cause: isText })),
  holdFrom: isNumber,
  rejectFrom: isNumber,
})

const COMMIT: readonly (readonly [string, Check])[] = Object.entries({
  owner: isNode,
  term: isTerm,
  holders: (value: unknown) => list(isNode)(value) && (value as unknown[]).length <= NODES_MAX,
  envelope: record({
    id: isText,
    receivedMs: isCount,
    clientIp: isText,
    greeting: isText,
    protocol: isText,
    tls: maybe(isText),
    outbound: isFlag,
    sender: isText,
    eightBit: isFlag,
    smtpUtf8: isFlag,
    ret: word(['FULL', 'HDRS', null]),
    envid: maybe(isText),
    recipients: list(record({ address: isText, notify: maybe(isText), orcpt: maybe(isText) })),
  }),
  prepend: isText,
  sizeBytes: isCount,
  sha256: (value: unknown) => typeof value === 'string' && /^[0-9a-f]{64}$/.test(value),
  pieces: isCount,
  expiresMs: isNumber,
  cuts: (value: unknown) => value === undefined || isCuts(value),
  facts: record({
    subject: maybe(isText),
    from: maybe(isText),
    messageId: maybe(isText),
    authors: list(isText),
  }),
  verdicts: list(
    record({ kind: isText, score: isNumber, rules: list(isText), unknown: list(isText) }),
  ),
  judgement: maybe(JUDGEMENT),
  dsn: isFlag,
  heldMoved: isFlag,
  recipients: list(
    record({
      state: (state) => RECIPIENT_STATES.has(state),
      attempts: isCount,
      nextTryMs: isNumber,
      lastReply: maybe(isText),
      doubtful: isFlag,
      warned: isFlag,
    }),
  ),
} satisfies Record<keyof Commit, Check>)

function isNumber(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value)
}

function isTerm(value: unknown): value is number {
  return isCount(value) && value >= 1 && value <= TERM_MAX
}

function isLine(value: unknown): value is string {
  return typeof value === 'string' && value.length <= LINE_CHARS_MAX
}

function isNode(value: unknown): value is NodeId {
  return typeof value === 'string' && parseNodeId(value) !== null
}

function eachOf<Item>(
  list: readonly unknown[],
  read: (value: unknown) => Item | null,
): readonly Item[] | null {
  const items: Item[] = []
  for (const value of list) {
    const item = read(value)
    if (item === null) return null
    items.push(item)
  }
  return items
}
