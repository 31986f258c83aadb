/** The queue: what waits, try now, give up. */
import { RefusalError } from '../base/errors.ts'
import { LIST_MAX } from '../base/limits.ts'
import type { Operators } from '../store/operators.ts'
import type { Quarantine } from '../store/quarantine.ts'
import type { Trace } from '../store/trace.ts'
import { mustAct, readMessageId, unknownMessage } from './authorise.ts'
import type { Admin } from './contract.ts'
import type { MailActions } from './mail-actions.ts'
import { elsewhere } from './messages.ts'

type QueuePart = Pick<Admin, 'queue' | 'retry' | 'drop'>

export function queuePart({
  mail,
  operators,
  trace,
  quarantine,
}: {
  readonly mail: MailActions
  readonly operators: Operators
  readonly trace: Pick<Trace, 'message'>
  readonly quarantine: Pick<Quarantine, 'node'>
}): QueuePart {
  /** A mail waits on the node that took it, and is tried or given up there. */
  function notHere(rawId: string): RefusalError {
    const { rows } = trace.message(readMessageId(rawId))
    const owner = elsewhere(rows, quarantine.node.id)
    if (owner === null) return unknownMessage(rawId)
    const message = `This mail waits in the queue of ${owner.name}.`
    return new RefusalError('conflict', 'id', message, `Do it on ${owner.name}.`)
  }

  return {
    queue: ({ limit, cursor }) =>
      mail.queueRows({ limit: Math.min(Math.max(1, Math.floor(limit) || 1), LIST_MAX), cursor }),

    retry(author, rawId) {
      mustAct(author)
      if (rawId === null) return mail.retry(null)
      const id = readMessageId(rawId)
      if (mail.queueOne(id) === null) throw notHere(rawId)
      return mail.retry(id)
    },

    async drop(author, rawId, bounce) {
      mustAct(author)
      const id = readMessageId(rawId)
      if (mail.queueOne(id) === null) throw notHere(rawId)
      operators.audit(author.name, 'queue.drop', id, bounce ? 'with a bounce' : 'without a bounce')
      if (!(await mail.drop(id, bounce))) throw notHere(rawId)
    },
  }
}
