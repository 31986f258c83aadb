/** The queue: what waits, try now, give up. */
import { LIST_MAX } from '../base/limits.ts'
import type { Operators } from '../store/operators.ts'
import { mustAct, readMessageId, unknownMessage } from './authorise.ts'
import type { Admin } from './contract.ts'
import type { MailActions } from './mail-actions.ts'

type QueuePart = Pick<Admin, 'queue' | 'retry' | 'drop'>

export function queuePart({
  mail,
  operators,
}: {
  readonly mail: MailActions
  readonly operators: Operators
}): QueuePart {
  return {
    queue: ({ limit, cursor }) =>
      mail.queueRows({ limit: Math.min(Math.max(1, Math.floor(limit) || 1), LIST_MAX), cursor }),

    retry(author, rawId) {
      mustAct(author)
      if (rawId === null) return mail.retry(null)
      const id = readMessageId(rawId)
      if (mail.queueOne(id) === null) throw unknownMessage(rawId)
      return mail.retry(id)
    },

    async drop(author, rawId, bounce) {
      mustAct(author)
      const id = readMessageId(rawId)
      if (mail.queueOne(id) === null) throw unknownMessage(rawId)
      operators.audit(author.name, 'queue.drop', id, bounce ? 'with a bounce' : 'without a bounce')
      if (!(await mail.drop(id, bounce))) throw unknownMessage(rawId)
    },
  }
}
