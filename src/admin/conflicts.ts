/** Values that two nodes set at the same time, and which one to keep. */
import type { Conflicts } from '../store/conflicts.ts'
import { mustAct } from './authorise.ts'
import type { ClusterAdmin } from './contract.ts'

type ConflictsPart = Pick<ClusterAdmin, 'conflicts' | 'keep'>

export function conflictsPart({ conflicts }: { readonly conflicts: Conflicts }): ConflictsPart {
  return {
    conflicts: () => conflicts.list(),
    keep(author, key, side) {
      mustAct(author)
      conflicts.keep(author.name, key, side)
    },
  }
}
