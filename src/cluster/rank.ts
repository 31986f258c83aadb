/** Rendezvous hashing (Thaler and Ravishankar, 1998): all nodes agree, unasked, who comes first for a key. */
import type { NodeId } from '../base/ids.ts'

/** `nodes` in the order in which they are to keep, adopt or do `key`, the first one first. */
export function ranked(key: string, nodes: Iterable<NodeId>): readonly NodeId[] {
  return [...nodes]
    .map((node) => ({ node, rank: rankOf(key, node) }))
    .sort((a, b) => b.rank - a.rank || (a.node < b.node ? 1 : -1))
    .map(({ node }) => node)
}

export function rankOf(key: string, node: NodeId): number {
  return hashOf(`${key} ${node}`)
}

/** 32 bits; never to be changed, since nodes of different versions must agree. */
export function hashOf(text: string): number {
  let hash = 0x811c_9dc5
  for (let index = 0; index < text.length; index++) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x0100_0193)
  }
  // Ids differ in few places: every bit must reach every other (Appleby, MurmurHash3).
  hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
