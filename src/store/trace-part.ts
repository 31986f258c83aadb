/** A part of a message as it travels in the trace, and the reading of one that a peer sent. */
import { type MessageId, parseMessageId, parseNodeId } from '../base/ids.ts'
import { isCount, type Raw, RowCheck } from '../base/raw.ts'
import { isWriterId, type WriterId } from '../config/merge.ts'
import type { trace, traceEvents } from './tables.ts'

/** Recipients of one part of a message. With all their texts they fit a message of a link. */
export const PART_PLACES = 50
/** Bounds of a row of a peer; ours stay below. */
const TEXT_MAX = 20_000
const JUDGEMENT_MAX = 400_000
const LINES_MAX = 10_000
const DOTS_MAX = 20_000

const CHECK = new RowCheck("A row of a peer's history")

export type StoredRow = typeof trace.$inferSelect
/** What both nodes hold of a recipient; how a subject is folded is each node's own business. */
export type RowState = Omit<StoredRow, 'folded'>
export type Line = typeof traceEvents.$inferSelect
export type Dot = readonly [writer: WriterId, seq: number]

/** A part of a message, whole, and the writes that it answers for. */
export type TracePart = {
  readonly id: MessageId
  readonly part: number
  readonly rows: readonly Omit<RowState, 'id'>[]
  /** Those of the writes in `dots`. */
  readonly lines: readonly Omit<Line, 'id'>[]
  /** JSON of a Judgement; with part 0 only. */
  readonly judgement: string | null
  readonly dots: readonly Dot[]
}

/** The part of a message in which a recipient stands. */
export function partOf(place: number): number {
  return Math.floor(place / PART_PLACES)
}

/** @throws RefusalError invalid, naming the field */
export function readPart(raw: unknown): TracePart {
  const part = CHECK.object(raw, 'row')
  const { id, judgement } = part
  if (typeof id !== 'string' || parseMessageId(id) === null) throw CHECK.wrong('id')
  if (!isCount(part['part'])) throw CHECK.wrong('part')
  if (judgement !== null) readJudgement(judgement)
  const dots = CHECK.array(part['dots'], 'dots', DOTS_MAX)
  for (const dot of dots) {
    const [writer, seq] = CHECK.array(dot, 'dots', 2)
    if (!isWriterId(writer) || !isCount(seq) || seq === 0) throw CHECK.wrong('dots')
  }
  return {
    id: id as MessageId,
    part: part['part'],
    rows: CHECK.array(part['rows'], 'rows', PART_PLACES).map((row) =>
      readRow(CHECK.object(row, 'rows')),
    ),
    lines: CHECK.array(part['lines'], 'lines', LINES_MAX).map((line) =>
      readLine(CHECK.object(line, 'lines')),
    ),
    judgement: judgement as string | null,
    dots: dots as readonly Dot[],
  }
}

function readJudgement(raw: unknown): void {
  if (typeof raw !== 'string' || raw.length > JUDGEMENT_MAX) throw CHECK.wrong('judgement')
  try {
    CHECK.object(JSON.parse(raw), 'judgement')
  } catch {
    throw CHECK.wrong('judgement')
  }
}

function readRow(raw: Raw): Omit<RowState, 'id'> {
  const node = textIn(raw, 'node')
  if (parseNodeId(node) === null) throw CHECK.wrong('node')
  return {
    node,
    place: countIn(raw, 'place'),
    version: countIn(raw, 'version'),
    atMs: countIn(raw, 'atMs'),
    clientIp: textIn(raw, 'clientIp'),
    sender: textIn(raw, 'sender'),
    recipient: textIn(raw, 'recipient'),
    subject: textOrNullIn(raw, 'subject'),
    sizeBytes: countIn(raw, 'sizeBytes'),
    score: numberIn(raw, 'score'),
    rules: textIn(raw, 'rules'),
    unknownCount: countIn(raw, 'unknownCount'),
    // Words of a later version are shown as they are.
    accept: wordIn(raw, 'accept') as StoredRow['accept'],
    acceptReply: textIn(raw, 'acceptReply'),
    delivery: raw['delivery'] === null ? null : (wordIn(raw, 'delivery') as StoredRow['delivery']),
    deliveryReply: textOrNullIn(raw, 'deliveryReply'),
    deliveryMs: countOrNullIn(raw, 'deliveryMs'),
    releasedMs: countOrNullIn(raw, 'releasedMs'),
  }
}

function readLine(raw: Raw): Omit<Line, 'id'> {
  const { writer } = raw
  if (!isWriterId(writer)) throw CHECK.wrong('writer')
  return {
    seq: countIn(raw, 'seq'),
    writer,
    dot: countIn(raw, 'dot'),
    atMs: countIn(raw, 'atMs'),
    recipient: textOrNullIn(raw, 'recipient'),
    what: textIn(raw, 'what'),
    detail: textIn(raw, 'detail'),
  }
}

function countIn(raw: Raw, field: string): number {
  const value = raw[field]
  if (!isCount(value)) throw CHECK.wrong(field)
  return value
}

function countOrNullIn(raw: Raw, field: string): number | null {
  return raw[field] === null ? null : countIn(raw, field)
}

function numberIn(raw: Raw, field: string): number {
  const value = raw[field]
  if (typeof value !== 'number' || !Number.isFinite(value)) throw CHECK.wrong(field)
  return value
}

function textIn(raw: Raw, field: string): string {
  const value = raw[field]
  if (typeof value !== 'string' || value.length > TEXT_MAX) throw CHECK.wrong(field)
  return value
}

function textOrNullIn(raw: Raw, field: string): string | null {
  return raw[field] === null ? null : textIn(raw, field)
}

function wordIn(raw: Raw, field: string): string {
  const value = textIn(raw, field)
  if (!/^[a-zA-Z]{1,20}$/.test(value)) throw CHECK.wrong(field)
  return value
}
