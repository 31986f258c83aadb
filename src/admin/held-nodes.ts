/** The cluster, as held mail sees it: who is gone and how, who takes a body, who has a claim. */
import { type Clock, isoTime, wallOf } from '../base/clock.ts'
import type { NodeId } from '../base/ids.ts'
import type { Absences } from '../cluster/absence.ts'
import type { Candidates } from '../cluster/candidates.ts'
import type { Cluster } from '../cluster/cluster.ts'
import type { Patience } from '../cluster/patience.ts'
import { ranked } from '../cluster/rank.ts'
import type { Taken } from '../cluster/taken.ts'
import type { HeldAbsence, HeldNodes } from '../mail/quarantine/nodes.ts'
import type { HeldPeers } from './held.ts'

export type HeldNodesDeps = {
  readonly clock: Clock
  readonly cluster: Pick<Cluster, 'calls' | 'roster' | 'members' | 'sync' | 'heardMs'>
  readonly absences: Pick<Absences, 'of'>
  readonly candidates: Pick<Candidates, 'all'>
  readonly taken: Pick<Taken, 'by'>
  readonly patience: Pick<Patience, 'drainedMs'>
}

export function heldNodes(deps: HeldNodesDeps): HeldNodes & HeldPeers {
  const { clock, cluster, absences, candidates, taken, patience } = deps
  const { calls, roster, members, sync } = cluster
  // Rows that name these times take whole ms only.
  const wallOfBoot = (boot: number): number => Math.round(clock.wallMs() - (clock.bootMs() - boot))

  /**
   * When rows last went between the two, wall ms: a sign of life without them proves nothing of what
   * it had decided. Null: never since this node started.
   */
  function rowsMs(node: NodeId): number | null {
    const heard = sync.peer(node)
    return heard === null ? null : wallOf(clock, heard.heardMono)
  }

  function absence(node: NodeId): HeldAbsence {
    const member = roster.get(node)
    const lastContactMs = cluster.heardMs(node)
    const known = { refusedSinceMs: null, lastContactMs }
    if (member !== null && member.standing !== 'member') {
      return { standing: member.standing === 'left' ? 'left' : 'removed', ...known }
    }
    const found = absences.of(node)
    // Whoever drained a node is about to start it again.
    const isRestarting = ({ refusedBoot }: { readonly refusedBoot: number }): boolean =>
      member?.drain === 'drained' && clock.bootMs() - refusedBoot < patience.drainedMs
    switch (found.kind) {
      case 'here':
        return { standing: members.get(node)?.life === 'dead' ? 'silent' : 'here', ...known }
      case 'silent':
        return { standing: 'silent', ...known }
      default:
        if (!('refusedBoot' in found))
          return { standing: member === null ? 'silent' : 'removed', ...known }
        return {
          standing: found.kind === 'confirmed' && !isRestarting(found) ? 'confirmed' : 'silent',
          refusedSinceMs: wallOfBoot(found.refusedBoot),
          lastContactMs: rowsMs(node),
        }
    }
  }

  return {
    ask: (...question) => calls.ask(...question),
    fetch: (...question) => calls.fetch(...question),
    absence,
    staying: () =>
      roster
        .peers()
        .filter(({ node, drain }) => drain !== 'leaving' && members.get(node)?.life !== 'dead')
        .map(({ node }) => node),
    candidates: (id) => ranked(id, candidates.all()),
    ranked,
    hasReadAll: (node) => sync.hasReadAll(node),
    taken: (nodes) => taken.by(nodes),
    describe: (node) => {
      const heardMs = cluster.heardMs(node)
      return heardMs === null
        ? 'has not answered since this node started'
        : `has not answered since ${isoTime(heardMs)}`
    },
  }
}
