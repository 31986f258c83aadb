/**
 * The queue of all nodes, on every node: what waits, try now, give up. A mail is tried and given up
 * by its owner; a node that does not answer in its time is named, and nobody waits for it.
 */
import { RefusalError } from '../base/errors.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import { LIST_MAX } from '../base/limits.ts'
import type { NodeName, QueueRow, TraceRow } from '../message/rows.ts'
import type { Operators } from '../store/operators.ts'
import type { Quarantine } from '../store/quarantine.ts'
import type { Trace } from '../store/trace.ts'
import { mustAct, readMessageId, unknownMessage } from './authorise.ts'
import type { Admin, QueuePage } from './contract.ts'
import type { MailActions } from './mail-actions.ts'
import { askDrop, askOne, askRetry, askRows, type Part, type QueuePeers } from './queue-peers.ts'

type QueuePart = Pick<Admin, 'queue' | 'retry' | 'drop'>

type Deps = {
  readonly mail: MailActions
  readonly operators: Pick<Operators, 'audit'>
  readonly trace: Pick<Trace, 'message'>
  readonly quarantine: Pick<Quarantine, 'node'>
  readonly queuePeers: QueuePeers
}

export function queuePart({ mail, operators, trace, quarantine, queuePeers }: Deps): QueuePart {
  const here = quarantine.node.id

  /** The node that tries it; here, or one that answers. @throws RefusalError */
  async function ownerOf(rawId: string): Promise<{ readonly id: MessageId; readonly at: NodeId }> {
    const id = readMessageId(rawId)
    if (mail.queueOne(id) !== null) return { id, at: here }
    const row = await queuedRow(id, { mail, queuePeers })
    const { rows } = trace.message(id)
    if (row === null && rows.length === 0) throw unknownMessage(rawId)
    const owner = row?.owner ?? elsewhere(rows, here)
    const isSilent = queuePeers.others().some((one) => one.id === owner?.id && !one.answers)
    if (owner !== null && isSilent) throw ownerSilent(owner, queuePeers.describe(owner.id))
    if (owner === null || row === null) throw notWaiting()
    return { id, at: owner.id }
  }

  return {
    async queue({ limit, cursor, alone = false }): Promise<QueuePage> {
      const most = Math.min(Math.max(1, Math.floor(limit) || 1), LIST_MAX)
      const asked = { limit: most, cursor, alone }
      const others = queuePeers.others()
      const gone = queuePeers.gone()
      const of = [...gone, ...others.flatMap(({ id, answers }) => (answers ? [] : [id]))]
      const parts = await Promise.all(
        others.map(({ id, answers }) =>
          answers ? askRows(queuePeers, id, { ...asked, of }) : null,
        ),
      )
      const silent = others.filter((_, at) => parts[at] === null)
      const own = mail.queueRows({ ...asked, of: [...gone, ...silent.map(({ id }) => id)] })
      const all = [{ ...own, more: own.cursor !== null }, ...parts.filter((part) => part !== null)]
      return { ...merged(all, most), silent: silent.map(({ id, name }) => ({ id, name })) }
    },

    async retry(author, rawId) {
      mustAct(author)
      if (rawId !== null) {
        const { id, at } = await ownerOf(rawId)
        const retried = at === here ? mail.retry(id) : await askRetry(queuePeers, at, id)
        return { retried, silent: [] }
      }
      let retried = mail.retry(null)
      const others = queuePeers.others()
      const counts = await Promise.allSettled(
        others.map(({ id, answers }) => (answers ? askRetry(queuePeers, id, null) : null)),
      )
      const silent = others.flatMap(({ id, name }, at) => {
        const count = counts[at]
        if (count?.status !== 'fulfilled' || count.value === null) return [{ id, name }]
        retried += count.value
        return []
      })
      return { retried, silent }
    },

    async drop(author, rawId, bounce) {
      mustAct(author)
      const { id, at } = await ownerOf(rawId)
      operators.audit(author.name, 'queue.drop', id, bounce ? 'with a bounce' : 'without a bounce')
      const dropped =
        at === here ? await mail.drop(id, bounce) : await askDrop(queuePeers, at, id, bounce)
      if (!dropped) throw notWaiting()
    },
  }
}

/**
 * Its row: of its owner when that answers, else of a node with a copy; null when nobody who
 * answers has it.
 */
export async function queuedRow(
  id: MessageId,
  { mail, queuePeers }: Pick<Deps, 'mail' | 'queuePeers'>,
): Promise<QueueRow | null> {
  const own = mail.queueOne(id)
  if (own !== null) return own
  const asked = queuePeers.others().filter(({ answers }) => answers)
  const given = await Promise.all(
    asked.map(async ({ id: node }) => ({ node, row: await askOne(queuePeers, node, id) })),
  )
  const owned = given.flatMap(({ node, row }) => (row?.owner.id === node ? [row] : []))
  // Of a mail whose owner answers only the owner's word counts: it may be done with it.
  const answering = new Set(asked.map((one) => one.id))
  const rows = [...given.map(({ row }) => row), mail.copyOne(id)]
  const copies = rows.flatMap((row) => (row === null || answering.has(row.owner.id) ? [] : [row]))
  return newest(owned) ?? newest(copies)
}

function newest(rows: readonly QueueRow[]): QueueRow | null {
  return rows.toSorted((a, b) => b.term - a.term)[0] ?? null
}

/** One page of several lists, each row once. Below the last row of a part with more, nothing is known. */
function merged(parts: readonly Part[], limit: number) {
  const rows = new Map<MessageId, QueueRow>()
  for (const row of parts.flatMap((part) => part.rows)) {
    const before = rows.get(row.id)
    if (before === undefined || before.term < row.term) rows.set(row.id, row)
  }
  const known = parts.flatMap(({ rows: some, more }) => (more ? (some.at(-1)?.id ?? []) : []))
  const floor = known.toSorted().at(-1) ?? ''
  const newestFirst = [...rows.values()].sort((a, b) => (a.id < b.id ? 1 : -1))
  const page = newestFirst.filter(({ id }) => id >= floor).slice(0, limit)
  const isAll = page.length === newestFirst.length && known.length === 0
  return {
    rows: page,
    total: parts.reduce((sum, { total }) => sum + total, 0),
    cursor: isAll ? null : (page.at(-1)?.id ?? null),
  }
}

const WAITING: ReadonlySet<TraceRow['delivery']> = new Set([
  'queued',
  'deferred',
  'inDoubt',
  'released',
])

/** Does its history say that something of it waits? */
export function isWaiting(rows: readonly TraceRow[]): boolean {
  return rows.some(({ delivery }) => WAITING.has(delivery))
}

/** The other node in whose queue a mail waited last, as far as its history says. */
export function elsewhere(rows: readonly TraceRow[], here: NodeId): NodeName | null {
  return rows.find((row) => row.node.id !== here && WAITING.has(row.delivery))?.node ?? null
}

function ownerSilent(owner: NodeName, why: string): RefusalError {
  return new RefusalError(
    'unavailable',
    'id',
    `This mail waits with ${owner.name}, which ${why}.`,
    `It goes on when ${owner.name} answers or another node takes it over; "postern remove ${owner.name}" if that one is gone for good.`,
  )
}

function notWaiting(): RefusalError {
  return new RefusalError(
    'conflict',
    'id',
    'This mail does not wait in a queue any more.',
    'Its history says what became of it.',
  )
}
