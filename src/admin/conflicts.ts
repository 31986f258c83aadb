/** Values that two nodes set at the same time, and which one to keep. */
import type { Conflicts } from '../store/conflicts.ts'
import { mustAct } from './authorise.ts'
import type { ClusterAdmin } from './contract.ts'
import type { MailActions } from './mail-actions.ts'
import { retryDomainOf } from './settings.ts'

type ConflictsPart = Pick<ClusterAdmin, 'conflicts' | 'keep'>

export function conflictsPart(deps: {
  readonly conflicts: Conflicts
  readonly mail: MailActions
}): ConflictsPart {
  const { conflicts, mail } = deps
  return {
    conflicts: () => conflicts.list(),
    keep(author, key, side) {
      mustAct(author)
      conflicts.keep(author.name, key, side)
      retryDomainOf(key, mail)
    },
  }
}
