/** Messages: numbers, search, and all that is known of one. */
import type { Clock } from '../base/clock.ts'
import type { NodeId } from '../base/ids.ts'
import type { NodeName, TraceEvent, TraceRow } from '../message/rows.ts'
import type { Quarantine } from '../store/quarantine.ts'
import { parseQuery } from '../store/query.ts'
import type { Trace } from '../store/trace.ts'
import { readMessageId, unknownMessage } from './authorise.ts'
import type { Admin } from './contract.ts'
import { detailOf } from './held.ts'
import type { MailActions } from './mail-actions.ts'

type MessagesPart = Pick<Admin, 'overview' | 'search' | 'message'>

export function messagesPart(deps: {
  readonly clock: Clock
  readonly trace: Trace
  readonly quarantine: Quarantine
  readonly mail: MailActions
}): MessagesPart {
  const { clock, trace, quarantine, mail } = deps
  return {
    overview: (sinceMs, buckets) => trace.overview(sinceMs, buckets),

    search({ text, limit, cursor }) {
      const query = parseQuery(text, clock.wallMs())
      const found = trace.search(query, { limit, cursor })
      return { ...found, words: query.words, mistakes: query.mistakes }
    },

    message(rawId) {
      const id = readMessageId(rawId)
      const known = trace.message(id)
      const entry = quarantine.one(id)
      const queue = mail.queueOne(id)
      if (known.rows.length === 0 && entry === null && queue === null) throw unknownMessage(rawId)
      const events = [...atTheDoor(known.rows), ...known.events]
      return {
        ...known,
        events,
        held: entry === null ? null : detailOf(entry),
        queue,
        queuedOn: queue === null ? elsewhere(known.rows, quarantine.node.id) : null,
      }
    },
  }
}

const WAITING: ReadonlySet<TraceRow['delivery']> = new Set([
  'queued',
  'deferred',
  'inDoubt',
  'released',
])

/** The other node in whose queue a mail waits: it is delivered from where it came in. */
export function elsewhere(rows: readonly TraceRow[], here: NodeId): NodeName | null {
  return rows.find((row) => row.node.id !== here && WAITING.has(row.delivery))?.node ?? null
}

/** The first lines of a history follow from the rows: thousands of mails a second write none. */
function atTheDoor(rows: readonly TraceRow[]): readonly TraceEvent[] {
  const first = rows[0]
  if (first === undefined) return []
  const from = first.clientIp === '' ? 'made by this node' : `from ${first.clientIp}`
  return [
    { atMs: first.atMs, recipient: null, what: 'received', detail: from },
    ...rows.map(({ atMs, recipient, accept, acceptReply }) => ({
      atMs,
      recipient,
      what: accept,
      detail: acceptReply,
    })),
  ]
}
