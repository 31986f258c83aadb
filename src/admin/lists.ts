/** The allow and the block list. */
import type { Lists } from '../store/lists.ts'
import { mustAct } from './authorise.ts'
import type { ClusterAdmin } from './contract.ts'

type ListsPart = Pick<ClusterAdmin, 'listEntries' | 'addListEntry' | 'removeListEntry'>

export function listsPart({ lists }: { readonly lists: Lists }): ListsPart {
  return {
    listEntries: (list) => lists.entries(list),
    addListEntry(author, { list, kind, value, note = '' }) {
      mustAct(author)
      return lists.add(author.name, { list, kind, value, note })
    },
    removeListEntry(author, list, kind, value) {
      mustAct(author)
      lists.remove(author.name, list, kind, value)
    },
  }
}
