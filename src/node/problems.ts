/** Why a node should get no mail now: its own parts, and what the cluster says of it. */
import { type Clock, pause } from '../base/clock.ts'
import type { Cluster } from '../cluster/cluster.ts'
import type { LiveConfig } from '../config/live.ts'
import type { SmtpListener } from '../mail/accept/listener.ts'
import type { Inspectors } from '../mail/inspect/contract.ts'
import type { Spool } from '../store/spool.ts'

/** Why this node should get no mail now; empty when it should. Tests the thing itself. */
export function problemsOf(
  spool: Spool,
  listener: SmtpListener,
  inspectors: Inspectors,
  live: LiveConfig,
): readonly string[] {
  const problems: string[] = []
  const { settings } = live.current
  if (spool.failure !== null) problems.push(`The spool has failed: ${spool.failure.message}.`)
  else if (!spool.hasRoom(settings['mail.size']))
    problems.push('The disk is full up to its reserve.')
  if (!listener.isListening) problems.push('The SMTP port is not open.')
  if (settings['inspect.inspectors'].length > 0 && inspectors.health().ready === 0) {
    problems.push('No inspector answers.')
  }
  return problems
}

export async function untilReady(problems: () => readonly string[], clock: Clock): Promise<void> {
  const deadlineMono = clock.monoMs() + 10_000
  while (problems().includes('No inspector answers.') && clock.monoMs() < deadlineMono) {
    await pause(clock, 5)
  }
}

/** Why the cluster keeps this node from taking mail. */
export function seatProblems(cluster: Cluster, isWaiting: boolean): readonly string[] {
  const { node } = cluster.roster.self
  const me = cluster.roster.get(node)
  if (me?.standing === 'left') return ['This node has left the cluster.']
  if (me?.standing === 'evicted') return ['This node was removed from the cluster.']
  if (cluster.removedBy !== null) {
    const who = cluster.nameOf(cluster.removedBy)
    return [`This node was removed from the cluster: ${who} refuses it.`]
  }
  if (isWaiting) return [waitingProblem(cluster)]
  if (me !== null && me.drain !== 'accepting') return [`This node is ${me.drain}.`]
  return []
}

function waitingProblem({ roster, sync }: Cluster): string {
  const waits = 'The settings of the cluster are not here yet'
  return roster.peers().every(({ node }) => sync.isWaiting(node))
    ? `${waits}, and all other nodes wait for them too: they are lost, but for a backup.`
    : `${waits}.`
}
