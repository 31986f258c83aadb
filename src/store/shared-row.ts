/** Checks a shared row that came from outside, field by field. Fields of later versions stay. */
import { isCount, type Raw, RowCheck } from '../base/raw.ts'
import {
  type Cell,
  type Head,
  isWriterId,
  type OwnedRow,
  type SharedRow,
  type SharedState,
} from '../config/merge.ts'

const KIND = /^[a-z][a-zA-Z-]{0,39}$/
const KEY_MAX = 1_024
/** Characters of one value: a list of a domain's recipients is the longest. */
export const VALUE_MAX = 400_000
const HEADS_MAX = 64
const CONTEXT_MAX = 10_000

const CHECK = new RowCheck('A row of a peer')

/** @throws RefusalError invalid, naming the field */
export function readSharedRow(raw: unknown): SharedRow {
  const row = CHECK.object(raw, 'row')
  const { kind, key } = row
  if (typeof kind !== 'string' || !KIND.test(kind)) throw CHECK.wrong('kind')
  if (typeof key !== 'string' || key.length > KEY_MAX) throw CHECK.wrong('key')
  return { kind, key, state: readState(row['state']) }
}

function readState(raw: unknown): SharedState {
  const state = CHECK.object(raw, 'state')
  if (state['shape'] === 'cell') return readCell(state)
  if (state['shape'] === 'owned') return readOwned(state)
  throw CHECK.wrong('state.shape')
}

function readCell(raw: Raw): Cell {
  const context = CHECK.array(raw['context'], 'context', CONTEXT_MAX)
  let before = ''
  for (const dot of context) {
    const [writer, seq] = CHECK.array(dot, 'context', 2)
    if (!isWriterId(writer) || !isSeq(seq) || writer <= before) throw CHECK.wrong('context')
    before = writer
  }
  const seen = new Map(context as readonly (readonly [string, number])[])
  const heads = CHECK.array(raw['heads'], 'heads', HEADS_MAX)
  if (heads.length === 0) throw CHECK.wrong('heads')
  let last = ''
  for (const one of heads) {
    const head = readHead(CHECK.object(one, 'heads'))
    const name = `${head.writer} ${String(head.seq).padStart(16, '0')}`
    if (name <= last || (seen.get(head.writer) ?? 0) < head.seq) throw CHECK.wrong('heads')
    last = name
  }
  // Checked above, field by field; what is not known stays in it.
  return raw as unknown as Cell
}

function readOwned(raw: Raw): OwnedRow {
  readHead(raw)
  const [term, revision] = CHECK.array(raw['version'], 'version', 2)
  if (!isCount(term) || !isCount(revision)) throw CHECK.wrong('version')
  const { untilMs } = raw
  if (untilMs !== null && !isCount(untilMs)) throw CHECK.wrong('untilMs')
  return raw as unknown as OwnedRow
}

function readHead(raw: Raw): Head {
  const { writer, seq, stamp, author, value } = raw
  if (!isWriterId(writer)) throw CHECK.wrong('writer')
  if (!isSeq(seq)) throw CHECK.wrong('seq')
  if (!isCount(stamp)) throw CHECK.wrong('stamp')
  if (typeof author !== 'string' || author.length > 200) throw CHECK.wrong('author')
  if (value !== null && (typeof value !== 'string' || value.length > VALUE_MAX))
    throw CHECK.wrong('value')
  return raw as unknown as Head
}

function isSeq(raw: unknown): raw is number {
  return isCount(raw) && raw > 0
}
