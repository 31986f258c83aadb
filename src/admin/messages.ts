/** Messages: numbers, search, and all that is known of one. */
import type { Clock } from '../base/clock.ts'
import type { TraceEvent, TraceRow } from '../message/rows.ts'
import type { Quarantine } from '../store/quarantine.ts'
import { parseQuery } from '../store/query.ts'
import type { Trace } from '../store/trace.ts'
import { readMessageId, unknownMessage } from './authorise.ts'
import type { Admin } from './contract.ts'
import type { MailActions } from './mail-actions.ts'
import { elsewhere, isWaiting, queuedRow } from './queue.ts'
import type { QueuePeers } from './queue-peers.ts'

type MessagesPart = Pick<Admin, 'overview' | 'search' | 'message'>

export function messagesPart(deps: {
  readonly clock: Clock
  readonly trace: Trace
  readonly quarantine: Quarantine
  readonly mail: MailActions
  readonly queuePeers: QueuePeers
  readonly held: Pick<Admin, 'heldOne'>
}): MessagesPart {
  const { clock, trace, quarantine, mail, held } = deps
  return {
    overview: (sinceMs, buckets) => trace.overview(sinceMs, buckets),

    search({ text, limit, cursor }) {
      const query = parseQuery(text, clock.wallMs())
      const found = trace.search(query, { limit, cursor })
      return { ...found, words: query.words, mistakes: query.mistakes }
    },

    async message(rawId) {
      const id = readMessageId(rawId)
      const known = trace.message(id)
      const entry = quarantine.one(id)
      const own = mail.queueOne(id)
      // Nobody is asked for what is known to be at its end.
      const mayWait = known.rows.length === 0 ? entry === null : isWaiting(known.rows)
      const queue = own ?? (mayWait ? await queuedRow(id, deps) : null)
      if (known.rows.length === 0 && entry === null && queue === null) throw unknownMessage(rawId)
      const events = [...atTheDoor(known.rows), ...known.events]
      return {
        ...known,
        events,
        held: entry === null ? null : held.heldOne(id),
        queue,
        queuedOn: queue === null ? elsewhere(known.rows, quarantine.node.id) : null,
      }
    },
  }
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
