/** How lists name the nodes of the cluster. */
import type { NodeId } from '../base/ids.ts'
import type { NodeName } from '../message/rows.ts'

/** Every node that was ever heard of, also those that left: their rows are still shown. */
export type NodeNames = () => readonly NodeName[]

export function nodeName(nodes: NodeNames, id: NodeId): NodeName {
  return nodes().find((node) => node.id === id) ?? { id, name: id }
}

/** Ids of the nodes whose name or id begins with `text`, whatever the case. */
export function nodesNamed(nodes: NodeNames, text: string): NodeId[] {
  const wanted = text.toLowerCase()
  return nodes()
    .filter(({ id, name }) => id.startsWith(wanted) || name.toLowerCase().startsWith(wanted))
    .map(({ id }) => id)
}
