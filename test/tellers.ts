/** Nodes of a mesh that tell each other their counts. */
import type { NodeId } from '../src/base/ids.ts'
import type { Member } from '../src/cluster/contract.ts'
import { ClusterTally } from '../src/cluster/tally.ts'
import { Mesh, type MeshNode } from './mesh.ts'

export type Teller = { readonly node: MeshNode; readonly tally: ClusterTally }

export type Tellers = {
  readonly mesh: Mesh
  readonly sides: readonly Teller[]
  /** Who does not accept. */
  readonly drains: Map<NodeId, Member['drain']>
}

export function tellers(count: number): Tellers {
  const drains = new Map<NodeId, Member['drain']>()
  const mesh = new Mesh()
  mesh.add(count)
  const sides = mesh.nodes.map((node) => {
    const { roster } = node
    const tally = new ClusterTally({
      clock: node,
      observer: node.observer,
      links: node.links,
      members: {
        get: (id) => ({ life: node.links.open.has(id) ? 'alive' : 'dead' }),
      },
      roster: {
        self: roster.self,
        members: () =>
          roster
            .members()
            .map((member) => ({ ...member, drain: drains.get(member.node) ?? 'accepting' })),
      },
    })
    return { node, tally }
  })
  mesh.join()
  mesh.run(2_000)
  return { mesh, sides, drains }
}
