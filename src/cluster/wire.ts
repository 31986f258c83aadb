/**
 * The bodies of what peers tell each other: JSON in UTF-8 with short keys, every field checked
 * before use. A field that is not known is ignored, and one that did not change is left out.
 */
import type { RefusalCode } from '../base/errors.ts'
import { type NodeId, parseNodeId } from '../base/ids.ts'
import { isCount, isRecord } from '../base/raw.ts'
import { isWriterId, type Vector, type WriterId } from '../config/merge.ts'
import type { Cursor, Place, WireRow } from '../store/feed.ts'
import { type NodeReport, TROUBLES_MAX } from './contract.ts'

/** Objects and arrays in each other. A row has five; a call is asked nothing deeper. */
export const DEPTH_MAX = 32
/** Writers in one message: 180 KB. A vector with more is told in several. */
export const WRITERS_MAX = 8_000
/** Leaves of a digest. */
export const LEAVES = 256
const ROWS_MAX = 20_000
const NAMES_MAX = 20_000
const NAME_CHARS_MAX = 2_048
const TEXT_CHARS_MAX = 64
const NODES_MAX = 1_024

/** What changed in one feed of the sender since its last beat on this link; null: nothing. */
export type FeedBeat = {
  readonly feed: string
  readonly generation: string | null
  readonly head: Place | null
  /** What it covers durably, as far as that is new to the reader. */
  readonly vector: Vector | null
  /** The reader forgets what it was told of the vector before. */
  readonly anew: boolean
  /** The vector goes on in the next beat, which follows at once. */
  readonly more: boolean
  readonly root: string | null
  readonly parked: number | null
  /** It has nothing yet of what all have in common; versions that do not say so have it. */
  readonly waits: boolean | null
}

export type Beat = {
  readonly wallMs: number
  readonly report: Partial<NodeReport> | null
  /** The members with whom it has no usable link; null: as before. */
  readonly apart: readonly NodeId[] | null
  readonly feeds: readonly FeedBeat[]
}

export type Pull = { readonly feed: string; readonly cursor: Cursor | null }

export type Batch = {
  readonly feed: string
  readonly cursor: Cursor
  readonly rows: readonly WireRow[]
  readonly final: boolean
  /** Never before the final batch. */
  readonly vector: Vector | null
}

export type Push = {
  readonly feed: string
  /** The node of the writer: not the sender when it was passed on. */
  readonly origin: NodeId
  readonly writer: WriterId
  readonly after: number
  readonly upto: number
  readonly rows: readonly WireRow[]
}

/** The names and hashes of a leaf from after `after` to `upto`; null: to its end. */
export type LeafNames = {
  readonly leaf: number
  readonly after: string
  readonly upto: string | null
  readonly names: readonly (readonly [name: string, hash: string])[]
}

/** `covered`: hash of the sender's vector; with another one there is nothing to compare. */
export type DigestStep = {
  readonly feed: string
  readonly covered: string
  readonly leaves: readonly string[] | null
  readonly named: readonly LeafNames[] | null
}

export type RepairStep = {
  readonly feed: string
  readonly covered: string
  readonly rows: readonly WireRow[]
  /** Names of rows that the sender wants. */
  readonly wanted: readonly string[]
}

const ENCODER = new TextEncoder()
const DECODER = new TextDecoder('utf-8', { fatal: true })

export function encodeBody(value: unknown): Uint8Array {
  return ENCODER.encode(JSON.stringify(value))
}

/** What a body says; null: not UTF-8, not JSON, no object, or too deep. */
export function parseBody(body: Uint8Array): Readonly<Record<string, unknown>> | null {
  // Before the parser: it goes down by recursion.
  if (isTooDeep(body)) return null
  try {
    const value: unknown = JSON.parse(DECODER.decode(body))
    return isRecord(value) ? value : null
  } catch {
    return null
  }
}

function isTooDeep(body: Uint8Array): boolean {
  let depth = 0
  let quoted = false
  for (let index = 0; index < body.length; index++) {
    const octet = body[index]
    if (quoted) {
      if (octet === 0x5c) index += 1
      else if (octet === 0x22) quoted = false
    } else if (octet === 0x22) quoted = true
    else if (octet === 0x5b || octet === 0x7b) {
      depth += 1
      if (depth > DEPTH_MAX) return true
    } else if (octet === 0x5d || octet === 0x7d) depth -= 1
  }
  return false
}

/** Reads fields one by one and remembers whether one of them was not what it must be. */
export class Fields {
  readonly #record: Readonly<Record<string, unknown>>
  #good: boolean

  constructor(value: unknown) {
    this.#good = isRecord(value)
    this.#record = isRecord(value) ? value : {}
  }

  /** Null when a field was wrong. */
  result<Value>(value: Value): Value | null {
    return this.#good ? value : null
  }

  /** A count or a time: a whole number from 0, exact in a double. */
  whole(name: string): number {
    return this.maybeWhole(name) ?? this.#bad(0)
  }

  maybeWhole(name: string): number | null {
    const value = this.#record[name]
    if (value === undefined) return null
    return isCount(value) ? value : this.#bad(0)
  }

  text(name: string, charsMax = TEXT_CHARS_MAX): string {
    return this.maybeText(name, charsMax) ?? this.#bad('')
  }

  maybeText(name: string, charsMax = TEXT_CHARS_MAX): string | null {
    const value = this.#record[name]
    if (value === undefined) return null
    return shortText(value, charsMax) ?? this.#bad('')
  }

  /** Absent is false. */
  flag(name: string): boolean {
    const value = this.#record[name]
    return value === undefined ? false : value === 1 ? true : this.#bad(false)
  }

  maybeFlag(name: string): boolean | null {
    const value = this.#record[name]
    return value === undefined ? null : value === 0 || value === 1 ? value === 1 : this.#bad(false)
  }

  node(name: string): NodeId {
    return parseNodeId(this.text(name)) ?? this.#bad('' as NodeId)
  }

  list(name: string, countMax: number): readonly unknown[] {
    return this.maybeList(name, countMax) ?? this.#bad([])
  }

  maybeList(name: string, countMax: number): readonly unknown[] | null {
    const value = this.#record[name]
    if (value === undefined) return null
    return Array.isArray(value) && value.length <= countMax ? value : this.#bad([])
  }

  /** Each element as `read` has it. */
  maybeEach<Item>(
    name: string,
    countMax: number,
    read: (value: unknown) => Item | null,
  ): readonly Item[] | null {
    const list = this.maybeList(name, countMax)
    return list === null ? null : this.#each(list, read)
  }

  /** The fields of an object. */
  maybeEntries<Item>(
    name: string,
    countMax: number,
    read: (key: string, value: unknown) => Item | null,
  ): readonly Item[] | null {
    const value = this.#record[name]
    if (value === undefined) return null
    const entries = isRecord(value) ? Object.entries(value) : null
    if (entries === null || entries.length > countMax) return this.#bad([])
    return this.#each(entries, ([key, inner]) => read(key, inner))
  }

  maybeVector(name: string): Vector | null {
    const entries = this.maybeEntries(name, WRITERS_MAX, (writer, seq) =>
      isWriterId(writer) && isCount(seq) && seq >= 1 ? ([writer, seq] as const) : null,
    )
    return entries === null ? null : new Map(entries)
  }

  maybeCursor(name: string): Cursor | null {
    const value = this.maybeList(name, 2)
    if (value === null) return null
    const [generation, at] = value
    const text = shortText(generation, TEXT_CHARS_MAX)
    return text !== null && isCount(at) ? { generation: text, at } : this.#bad(null)
  }

  /** Whatever it is; undefined is refused. */
  value(name: string): unknown {
    const value = this.#record[name]
    return value === undefined ? this.#bad(null) : value
  }

  maybeRecord(name: string): Fields | null {
    const value = this.#record[name]
    return value === undefined ? null : isRecord(value) ? new Fields(value) : this.#bad(null)
  }

  /** Takes over what another reader found wrong. */
  and(inner: Fields | null): void {
    if (inner !== null && !inner.#good) this.#good = false
  }

  #each<From, Item>(list: readonly From[], read: (one: From) => Item | null): readonly Item[] {
    const items: Item[] = []
    for (const one of list) {
      const item = read(one)
      if (item === null) return this.#bad([])
      items.push(item)
    }
    return items
  }

  #bad<Value>(instead: Value): Value {
    this.#good = false
    return instead
  }
}

function shortText(value: unknown, charsMax: number): string | null {
  return typeof value === 'string' && value.length <= charsMax ? value : null
}

export function encodeBeat({ wallMs, report, apart, feeds }: Beat): Uint8Array {
  return encodeBody({
    w: wallMs,
    r:
      report === null
        ? undefined
        : {
            y: bit(report.ready),
            q: report.queue,
            h: report.held,
            f: report.diskFreeBytes,
            t: report.diskTotalBytes,
            m: bit(report.takesCopies),
            c: report.copies,
            o: report.alone,
            d: report.inDoubt,
            x: report.troubles,
          },
    // Not `a`: builds before 0.1 had a table there.
    p: apart ?? undefined,
    f:
      feeds.length === 0
        ? undefined
        : Object.fromEntries(
            feeds.map(({ feed, generation, head, vector, anew, more, root, parked, waits }) => [
              feed,
              {
                g: generation ?? undefined,
                h: head ?? undefined,
                v: vector === null ? undefined : Object.fromEntries(vector),
                n: anew ? 1 : undefined,
                m: more ? 1 : undefined,
                d: root ?? undefined,
                p: parked ?? undefined,
                w: waits === null ? undefined : bit(waits),
              },
            ]),
          ),
  })
}

function bit(value: boolean | undefined): 0 | 1 | undefined {
  return value === undefined ? undefined : value ? 1 : 0
}

export function readBeat(body: Uint8Array): Beat | null {
  const fields = new Fields(parseBody(body))
  const report = fields.maybeRecord('r')
  const beat: Beat = {
    wallMs: fields.whole('w'),
    report: report === null ? null : readReport(report),
    apart: fields.maybeEach('p', NODES_MAX, (value) =>
      typeof value === 'string' ? parseNodeId(value) : null,
    ),
    feeds: fields.maybeEntries('f', 16, (feed, value) => readFeedBeat(feed, value)) ?? [],
  }
  fields.and(report)
  return fields.result(beat)
}

function readReport(fields: Fields): Partial<NodeReport> {
  const ready = fields.maybeFlag('y')
  const queue = fields.maybeWhole('q')
  const held = fields.maybeWhole('h')
  const diskFreeBytes = fields.maybeWhole('f')
  const diskTotalBytes = fields.maybeWhole('t')
  const takesCopies = fields.maybeFlag('m')
  const copies = fields.maybeWhole('c')
  const alone = fields.maybeWhole('o')
  const inDoubt = fields.maybeWhole('d')
  const troubles = fields.maybeEach('x', TROUBLES_MAX, (value) => shortText(value, TEXT_CHARS_MAX))
  return {
    ...(ready === null ? {} : { ready }),
    ...(queue === null ? {} : { queue }),
    ...(held === null ? {} : { held }),
    ...(diskFreeBytes === null ? {} : { diskFreeBytes }),
    ...(diskTotalBytes === null ? {} : { diskTotalBytes }),
    ...(takesCopies === null ? {} : { takesCopies }),
    ...(copies === null ? {} : { copies }),
    ...(alone === null ? {} : { alone }),
    ...(inDoubt === null ? {} : { inDoubt }),
    ...(troubles === null ? {} : { troubles }),
  }
}

function readFeedBeat(feed: string, value: unknown): FeedBeat | null {
  const fields = new Fields(value)
  return fields.result({
    feed,
    generation: fields.maybeText('g'),
    head: fields.maybeWhole('h'),
    vector: fields.maybeVector('v'),
    anew: fields.flag('n'),
    more: fields.flag('m'),
    root: fields.maybeText('d'),
    parked: fields.maybeWhole('p'),
    waits: fields.maybeFlag('w'),
  })
}

export function encodePull({ feed, cursor }: Pull): Uint8Array {
  return encodeBody({ f: feed, c: cursor === null ? undefined : [cursor.generation, cursor.at] })
}

export function readPull(body: Uint8Array): Pull | null {
  const fields = new Fields(parseBody(body))
  return fields.result({ feed: fields.text('f'), cursor: fields.maybeCursor('c') })
}

export function encodeBatch({ feed, cursor, rows, final, vector }: Batch): Uint8Array {
  return encodeBody({
    f: feed,
    c: [cursor.generation, cursor.at],
    r: rows,
    l: final ? 1 : undefined,
    v: final && vector !== null ? Object.fromEntries(vector) : undefined,
  })
}

export function readBatch(body: Uint8Array): Batch | null {
  const fields = new Fields(parseBody(body))
  const cursor = fields.maybeCursor('c')
  const final = fields.flag('l')
  const vector = fields.maybeVector('v')
  const rows = fields.list('r', ROWS_MAX)
  const feed = fields.text('f')
  // A vector before the end would claim rows that are still to come.
  if (cursor === null || (vector !== null && !final)) return null
  return fields.result({ feed, cursor, rows, final, vector: final ? (vector ?? new Map()) : null })
}

export function encodePush({ feed, origin, writer, after, upto, rows }: Push): Uint8Array {
  return encodeBody({ f: feed, o: origin, w: writer, a: after, u: upto, r: rows })
}

export function readPush(body: Uint8Array): Push | null {
  const fields = new Fields(parseBody(body))
  const push: Push = {
    feed: fields.text('f'),
    origin: fields.node('o'),
    writer: fields.text('w'),
    after: fields.whole('a'),
    upto: fields.whole('u'),
    rows: fields.list('r', ROWS_MAX),
  }
  return isWriterId(push.writer) && push.after < push.upto ? fields.result(push) : null
}

export function encodeDigest({ feed, covered, leaves, named }: DigestStep): Uint8Array {
  return encodeBody({
    f: feed,
    c: covered,
    s: leaves ?? undefined,
    n: named?.map(({ leaf, after, upto, names }) => [leaf, after, upto, names]),
  })
}

export function readDigest(body: Uint8Array): DigestStep | null {
  const fields = new Fields(parseBody(body))
  const step: DigestStep = {
    feed: fields.text('f'),
    covered: fields.text('c'),
    leaves: fields.maybeEach('s', LEAVES, (value) => shortText(value, TEXT_CHARS_MAX)),
    named: fields.maybeEach('n', LEAVES, readLeafNames),
  }
  if (step.leaves !== null && step.leaves.length !== LEAVES) return null
  return fields.result(step)
}

function readLeafNames(value: unknown): LeafNames | null {
  if (!Array.isArray(value)) return null
  const [leaf, first, last, list] = value as unknown[]
  const after = shortText(first, NAME_CHARS_MAX)
  const upto = last === null ? null : shortText(last, NAME_CHARS_MAX)
  if (!isCount(leaf) || leaf >= LEAVES) return null
  if (after === null || (upto === null && last !== null)) return null
  if (!Array.isArray(list) || list.length > NAMES_MAX) return null
  const names: [string, string][] = []
  for (const pair of list as unknown[]) {
    if (!Array.isArray(pair)) return null
    const name = shortText(pair[0], NAME_CHARS_MAX)
    const hash = shortText(pair[1], TEXT_CHARS_MAX)
    if (name === null || hash === null) return null
    names.push([name, hash])
  }
  return { leaf, after, upto, names }
}

export function encodeRepair({ feed, covered, rows, wanted }: RepairStep): Uint8Array {
  return encodeBody({ f: feed, c: covered, r: rows, q: wanted.length === 0 ? undefined : wanted })
}

export function readRepair(body: Uint8Array): RepairStep | null {
  const fields = new Fields(parseBody(body))
  return fields.result({
    feed: fields.text('f'),
    covered: fields.text('c'),
    rows: fields.list('r', ROWS_MAX),
    wanted: fields.maybeEach('q', NAMES_MAX, (value) => shortText(value, NAME_CHARS_MAX)) ?? [],
  })
}

// ---- calls ----

/** `id`: counted by the asker, on one link. */
export type Call = { readonly id: number; readonly topic: string; readonly value: unknown }

export type Answer =
  | { readonly id: number; readonly kind: 'json' | 'stream'; readonly value: unknown }
  | {
      readonly id: number
      readonly kind: 'refusal'
      readonly code: RefusalCode
      readonly field: string | null
      readonly message: string
      readonly advice: string
    }

/** `broken`: the rest will not come. */
export type Piece = {
  readonly id: number
  readonly end: 'open' | 'whole' | 'broken'
  readonly bytes: Uint8Array
}

/** Bytes that the asker takes on top; null: it wants no more. */
export type Flow = { readonly id: number; readonly credit: number | null }

const TEXTS_CHARS_MAX = 4_096
const PIECE_HEAD_BYTES = 5
const ENDS = ['open', 'whole', 'broken'] as const
const CODES: readonly RefusalCode[] = [
  'invalid',
  'notFound',
  'conflict',
  'unauthenticated',
  'forbidden',
  'locked',
  'unavailable',
]

export function encodeCall({ id, topic, value }: Call): Uint8Array {
  return encodeBody({ i: id, t: topic, v: value })
}

export function readCall(body: Uint8Array): Call | null {
  const fields = new Fields(parseBody(body))
  return fields.result({
    id: fields.whole('i'),
    topic: fields.text('t'),
    value: fields.value('v'),
  })
}

export function encodeAnswer(answer: Answer): Uint8Array {
  if (answer.kind !== 'refusal') {
    return encodeBody({
      i: answer.id,
      v: answer.value,
      s: answer.kind === 'stream' ? 1 : undefined,
    })
  }
  const { id, code, field, message, advice } = answer
  const [short, hint] = [message.slice(0, TEXTS_CHARS_MAX), advice.slice(0, TEXTS_CHARS_MAX)]
  return encodeBody({ i: id, c: code, f: field?.slice(0, TEXT_CHARS_MAX), m: short, a: hint })
}

export function readAnswer(body: Uint8Array): Answer | null {
  const fields = new Fields(parseBody(body))
  const id = fields.whole('i')
  const code = fields.maybeText('c')
  if (code === null) {
    const kind = fields.flag('s') ? ('stream' as const) : ('json' as const)
    return fields.result({ id, kind, value: fields.value('v') })
  }
  return fields.result({
    id,
    kind: 'refusal' as const,
    // A later version may know more of them.
    code: CODES.find((known) => known === code) ?? 'unavailable',
    field: fields.maybeText('f'),
    message: fields.text('m', TEXTS_CHARS_MAX),
    advice: fields.text('a', TEXTS_CHARS_MAX),
  })
}

/** Four bytes id, one byte end, the rest as it is. */
export function encodePiece({ id, end, bytes }: Piece): Uint8Array {
  const body = new Uint8Array(PIECE_HEAD_BYTES + bytes.length)
  const view = new DataView(body.buffer)
  view.setUint32(0, id)
  view.setUint8(4, ENDS.indexOf(end))
  body.set(bytes, PIECE_HEAD_BYTES)
  return body
}

export function readPiece(body: Uint8Array): Piece | null {
  if (body.length < PIECE_HEAD_BYTES) return null
  const view = new DataView(body.buffer, body.byteOffset, body.length)
  const end = ENDS[view.getUint8(4)]
  if (end === undefined) return null
  return { id: view.getUint32(0), end, bytes: body.subarray(PIECE_HEAD_BYTES) }
}

export function encodeFlow({ id, credit }: Flow): Uint8Array {
  return encodeBody({ i: id, c: credit ?? undefined })
}

export function readFlow(body: Uint8Array): Flow | null {
  const fields = new Fields(parseBody(body))
  return fields.result({ id: fields.whole('i'), credit: fields.maybeWhole('c') })
}
