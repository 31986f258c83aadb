/**
 * The queues of the other nodes: what waits there, where one mail waits, try it now, give it up.
 * Rows travel as a stream, because a mail has up to ten thousand recipients.
 */
import { isoTime } from '../base/clock.ts'
import { RefusalError } from '../base/errors.ts'
import { type MessageId, type NodeId, parseMessageId, parseNodeId } from '../base/ids.ts'
import { LIST_MAX } from '../base/limits.ts'
import type { Cluster } from '../cluster/cluster.ts'
import type { CallAnswer, Calls } from '../cluster/contract.ts'
import type { HolderRow, NodeName, QueueRecipientRow, QueueRow } from '../message/rows.ts'
import { RECIPIENT_STATES } from '../store/queued.ts'
import type { QueueQuery } from './contract.ts'
import type { MailActions } from './mail-actions.ts'

/** A list does not wait longer for a node; one that is needed for it may. */
const LOOK_MS = 1_500
const ACT_MS = 10_000
/** Rows of one answer end here; the next page goes on. A single row may be twice as long. */
const ROWS_BYTES_MAX = 4 * 1024 * 1024
const ANSWER_BYTES_MAX = 16 * 1024 * 1024
const PIECE_BYTES = 64 * 1024
/** Nodes whose copies are asked for at once. */
const OWNERS_MAX = 1_024

export type Member = NodeName & {
  /** False: a question to it would only wait for its end. */
  readonly answers: boolean
}

/** The other nodes, as far as their queues are concerned. */
export type QueuePeers = Pick<Calls, 'ask' | 'fetch'> & {
  readonly others: () => readonly Member[]
  /** Those that were members: until it is taken over, their mail is in the copies of others. */
  readonly gone: () => readonly NodeId[]
  readonly nameOf: (node: NodeId) => NodeName
  /** Follows its name: `has not answered since 2026-03-11T14:30:00.000Z`. */
  readonly describe: (node: NodeId) => string
}

export function queuePeersOf(
  cluster: Pick<Cluster, 'calls' | 'roster' | 'members' | 'links' | 'heardMs' | 'nameOf'>,
): QueuePeers {
  const { calls, roster, members, links } = cluster
  return {
    ask: (...question) => calls.ask(...question),
    fetch: (...question) => calls.fetch(...question),
    others: () =>
      roster.peers().map(({ node, name }) => ({
        id: node,
        name,
        answers: links.get(node) !== null && members.get(node)?.life === 'alive',
      })),
    gone: () => roster.former().map(({ node }) => node),
    nameOf: (node) => ({ id: node, name: cluster.nameOf(node) }),
    describe: (node) => {
      const heardMs = cluster.heardMs(node)
      if (heardMs === null) return 'has not answered since this node started'
      return `has not answered since ${isoTime(heardMs)}`
    },
  }
}

/** Of one node: newest first; `more`: it has others below the last one. */
export type Part = {
  readonly rows: readonly QueueRow[]
  readonly total: number
  readonly more: boolean
}

type Asked = QueueQuery & { readonly of: readonly NodeId[] }

/** What waits on `node`, and its copies of what belongs to `of`; null: it gave no answer of ours. */
export async function askRows(
  { fetch, nameOf }: Pick<QueuePeers, 'fetch' | 'nameOf'>,
  node: NodeId,
  { limit, cursor, alone = false, of }: Asked,
): Promise<Part | null> {
  try {
    const question = { limit, cursor, alone, of }
    const { value, bytes } = await fetch(node, 'queue.rows', question, LOOK_MS)
    const { total, more } = fields(value)
    const rows = readRows(await collect(bytes), nameOf)
    const isOurs = isCount(total) && typeof more === 'boolean' && rows !== null
    if (!isOurs || rows.length > limit) return null
    // What it does not own, or what stands above this page, is not what it was asked for.
    const known = new Set([node, ...of])
    const asked = ({ id, owner }: QueueRow) =>
      known.has(owner.id) && (cursor === null || id < cursor)
    return { rows: rows.filter(asked), total, more: more && rows.length > 0 }
  } catch (error) {
    if (error instanceof RefusalError) return null
    throw error
  }
}

/** Its row there, as owner or as a copy of a silent owner's; null: no row, or no answer. */
export async function askOne(
  { fetch, nameOf }: Pick<QueuePeers, 'fetch' | 'nameOf'>,
  node: NodeId,
  id: MessageId,
): Promise<QueueRow | null> {
  try {
    const { bytes } = await fetch(node, 'queue.one', { id }, LOOK_MS)
    const row = readRows(await collect(bytes), nameOf)?.[0]
    return row?.id === id ? row : null
  } catch (error) {
    if (error instanceof RefusalError) return null
    throw error
  }
}

/** How many are due now there. @throws RefusalError when it does not answer */
export async function askRetry(
  { ask }: Pick<QueuePeers, 'ask'>,
  node: NodeId,
  id: MessageId | null,
): Promise<number> {
  const { retried } = fields(await ask(node, 'queue.retry', { id }, ACT_MS))
  return isCount(retried) ? retried : 0
}

/** False: it does not wait there any more. @throws RefusalError when it does not answer */
export async function askDrop(
  { ask }: Pick<QueuePeers, 'ask'>,
  node: NodeId,
  id: MessageId,
  bounce: boolean,
): Promise<boolean> {
  return fields(await ask(node, 'queue.drop', { id, bounce }, ACT_MS))['dropped'] === true
}

/** Answers what the functions above ask, for this node. Who may act was looked at by the asker. */
export function answerQueue(calls: Pick<Calls, 'answer'>, mail: MailActions): void {
  calls.answer('queue.rows', async (value) => {
    const { limit, cursor, alone, of } = fields(value)
    if (!isCount(limit) || limit < 1 || limit > LIST_MAX) throw invalid('limit')
    if (cursor !== null && typeof cursor !== 'string') throw invalid('cursor')
    const owners = Array.isArray(of)
      ? of.slice(0, OWNERS_MAX).flatMap((id) => parseNodeId(String(id)) ?? [])
      : []
    const found = mail.queueRows({ limit, cursor, alone: alone === true, of: owners })
    let sizeBytes = 0
    let rows = 0
    const texts: string[] = []
    for (const row of found.rows) {
      const text = JSON.stringify(row)
      sizeBytes += text.length
      if (rows > 0 && sizeBytes > ROWS_BYTES_MAX) break
      texts.push(text)
      rows += 1
    }
    const more = found.cursor !== null || rows < found.rows.length
    return streamed({ total: found.total, more }, `[${texts.join(',')}]`)
  })
  calls.answer('queue.one', async (value) => {
    const id = idOf(value)
    const row = mail.queueOne(id) ?? mail.copyOne(id)
    return streamed({}, JSON.stringify(row === null ? [] : [row]))
  })
  calls.answer('queue.retry', async (value) => {
    const id = fields(value)['id'] === null ? null : idOf(value)
    return { kind: 'json', value: { retried: mail.retry(id) } }
  })
  calls.answer('queue.drop', async (value) => {
    const dropped = await mail.drop(idOf(value), fields(value)['bounce'] === true)
    return { kind: 'json', value: { dropped } }
  })
}

function streamed(value: unknown, text: string): CallAnswer {
  return { kind: 'stream', value, bytes: pieces(Buffer.from(text)) }
}

async function* pieces(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) yield bytes.subarray(at, at + PIECE_BYTES)
}

/** @throws RefusalError when it is too long, or ends before its end */
async function collect(bytes: AsyncIterable<Uint8Array>): Promise<string> {
  const taken: Uint8Array[] = []
  let sizeBytes = 0
  for await (const piece of bytes) {
    sizeBytes += piece.length
    if (sizeBytes > ANSWER_BYTES_MAX) throw invalid('rows')
    taken.push(Buffer.from(piece))
  }
  return Buffer.concat(taken).toString('utf8')
}

/** @throws RefusalError invalid */
function idOf(value: unknown): MessageId {
  const id = parseMessageId(String(fields(value)['id']))
  if (id === null) throw invalid('id')
  return id
}

// ---- rows as others send them: each field is looked at before it is used ----

/** Null: not rows of ours. */
function readRows(text: string, nameOf: QueuePeers['nameOf']): readonly QueueRow[] | null {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return null
  }
  if (!Array.isArray(value)) return null
  const rows = value.map((raw) => readRow(fields(raw), nameOf))
  return rows.every((row) => row !== null) ? rows : null
}

const STATES: ReadonlySet<unknown> = new Set<QueueRow['state']>(['queued', 'deferred', 'inDoubt'])
const HOLDS: ReadonlySet<unknown> = new Set<HolderRow['state']>(['sent', 'kept', 'discarding'])

function readRow(raw: Fields, nameOf: QueuePeers['nameOf']): QueueRow | null {
  const { term, waits, sender, subject, sizeBytes, acceptedMs, expiresMs, state } = raw
  const id = parseMessageId(String(raw['id']))
  // Names are ours: what a peer calls a third node is its own affair.
  const owner = nodeOf(raw['owner'], nameOf)
  const holders = listOf(raw['holders'], (one) => readHolder(one, nameOf))
  const recipients = listOf(raw['recipients'], readRecipient)
  if (id === null || owner === null || holders === null || recipients === null) return null
  if (!isCount(term) || !isTextOrNull(waits) || !isTextOrNull(subject)) return null
  if (typeof sender !== 'string' || !STATES.has(state)) return null
  if (!isCount(sizeBytes) || !isCount(acceptedMs) || !isCount(expiresMs)) return null
  return {
    id,
    owner,
    term,
    holders,
    waits,
    sender,
    subject,
    sizeBytes,
    acceptedMs,
    expiresMs,
    state: state as QueueRow['state'],
    recipients,
  }
}

function readHolder({ node, state }: Fields, nameOf: QueuePeers['nameOf']): HolderRow | null {
  const known = nodeOf(node, nameOf)
  if (known === null || !HOLDS.has(state)) return null
  return { node: known, state: state as HolderRow['state'] }
}

function readRecipient(raw: Fields): QueueRecipientRow | null {
  const { address, state, attempts, nextTryMs, lastReply } = raw
  if (typeof address !== 'string' || !RECIPIENT_STATES.has(state) || !isCount(attempts)) return null
  if (!isTextOrNull(lastReply) || (nextTryMs !== null && !isCount(nextTryMs))) return null
  return { address, state: state as QueueRecipientRow['state'], attempts, nextTryMs, lastReply }
}

type Fields = Readonly<Record<string, unknown>>

function fields(raw: unknown): Fields {
  return typeof raw === 'object' && raw !== null ? (raw as Fields) : {}
}

function listOf<Item>(raw: unknown, read: (one: Fields) => Item | null): readonly Item[] | null {
  if (!Array.isArray(raw)) return null
  const items = raw.map((one) => read(fields(one)))
  return items.every((item) => item !== null) ? items : null
}

function nodeOf(raw: unknown, nameOf: QueuePeers['nameOf']): NodeName | null {
  const id = parseNodeId(String(fields(raw)['id']))
  return id === null ? null : nameOf(id)
}

/** Times with a fraction are fine: a clock has one. */
function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0
}

function isTextOrNull(value: unknown): value is string | null {
  return value === null || typeof value === 'string'
}

function invalid(field: string): RefusalError {
  return new RefusalError(
    'invalid',
    field,
    `A question of a peer is not valid: ${field}.`,
    'Both nodes should run the same version, or one version apart.',
  )
}
