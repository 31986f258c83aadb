/** What a person may ask of the cluster, and change in it. */
import { type Clock, pause } from '../base/clock.ts'
import { RefusalError } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'
import type { Cluster } from '../cluster/cluster.ts'
import type { Member } from '../cluster/contract.ts'
import type { Remains } from '../cluster/transfer.ts'
import type { Audit } from '../store/audit.ts'
import type { Changes } from '../store/changes.ts'
import type { Quarantine } from '../store/quarantine.ts'
import { mustAct } from './authorise.ts'
import type { Alarm, Author, ClusterAdmin, RemovedNode } from './contract.ts'

/** Watchers hear of changes at most this often. */
const WATCH_MS = 250
/** Who asks to leave waits this long to see it done; after it, it goes on by itself. */
const LEFT_MS_MAX = 5_000
/** A node that leaves tells its peers, and waits this long for one to have it on its disk. */
const TOLD_MS_MAX = 10_000
/** The answer to a removal waits this long for the mail of the removed node to be taken over. */
const TAKEN_MS_MAX = 10_000

/** What every node can read: a stolen one takes it along. */
const RENEW: readonly string[] = [
  'It had the hashes of all passwords: let every operator choose a new one.',
  'It had the hashes of all API tokens: replace them when you cannot rule out that it was opened.',
  'It knew domains, next hops and who mailed whom for as long as the trace is kept.',
]

type ClusterPart = Pick<
  ClusterAdmin,
  | 'cluster'
  | 'watchCluster'
  | 'alarms'
  | 'invite'
  | 'invitations'
  | 'revokeInvitation'
  | 'join'
  | 'drain'
  | 'undrain'
  | 'leave'
  | 'removeNode'
>

export type ClusterPartDeps = {
  readonly clock: Clock
  readonly cluster: Cluster
  readonly audit: Pick<Audit, 'write'>
  /** `https://…:8443` as a new node reaches it, and the pin of its key; null on plain http. */
  readonly door: () => { readonly url: string; readonly pin: string | null }
  /** What must be on other nodes before this one may go. */
  readonly remains: () => Remains
  readonly quarantine: Pick<Quarantine, 'countOf'>
  /** Queued mail of another node of which copies are here. */
  readonly copiesOf: (owner: NodeId) => number
  readonly changes: Pick<Changes, 'configTrouble'>
  /** Asks the issuer of a token, and starts this node anew as a member of its cluster. */
  readonly join: (token: string, discard: boolean) => Promise<void>
}

export function clusterPart(deps: ClusterPartDeps): ClusterPart {
  const { clock, cluster, audit } = deps
  const { roster } = cluster
  const here = roster.self.node

  function found(node: string | null): Member {
    return cluster.find(node ?? here)
  }

  /** One that left or was removed would change the rows of nobody but itself. */
  function mustBelong(): void {
    mustBeMember(found(null))
    if (cluster.removedBy === null) return
    throw new RefusalError(
      'conflict',
      null,
      `This node was removed from the cluster: ${cluster.nameOf(cluster.removedBy)} refuses it.`,
      'Do it on another node.',
    )
  }

  /** In words; nothing that is 0. */
  function counts(): string {
    const { queue, held, copies, owed } = deps.remains()
    const named = [
      [queue, 'queued'],
      [held, 'held'],
      [copies, 'copies that no third node has'],
      [owed, 'delivered that another node has not heard of'],
    ] as const
    const words = named.flatMap(([count, what]) => (count === 0 ? [] : [`${count} ${what}`]))
    return words.length === 0 ? 'no mail' : words.join(', ')
  }

  function setDrain(author: Author, node: string | null, drain: Member['drain']): void {
    mustAct(author)
    mustBelong()
    const member = found(node)
    mustBeMember(member)
    if (member.node !== here && !cluster.members.isUsable(member.node)) {
      throw new RefusalError(
        'unavailable',
        'node',
        `It cannot be asked now: ${cluster.describe(member.node)}.`,
        'Try again when it answers. A node that is gone for good is removed.',
      )
    }
    if (drain === 'accepting' ? member.drain === 'accepting' : member.drain !== 'accepting') return
    roster.setDrain(member.node, drain, author.name)
    const act = drain === 'accepting' ? 'node.undrain' : 'node.drain'
    audit.write(author.name, act, member.name, '')
  }

  return {
    cluster: () => cluster.view(),

    watchCluster(listener) {
      let isWaiting = false
      return cluster.onChange(() => {
        if (isWaiting) return
        isWaiting = true
        clock.after(WATCH_MS, () => {
          isWaiting = false
          listener()
        })
      })
    },

    alarms: () => alarmsOf(deps),

    invite(author, input) {
      mustAct(author)
      mustBelong()
      const { id, token, expiresMs } = cluster.invitations.invite(input, author.name)
      const replaced = (input.replaces ?? null) === null ? '' : `in place of ${input.replaces}`
      audit.write(author.name, 'token.invite', id, `${input.name ?? ''} ${replaced}`.trim())
      const { url, pin } = deps.door()
      const curl = pin === null ? 'curl -fsS' : `curl -fsSk --pinnedpubkey '${pin}'`
      return { token, command: `${curl} ${url}/join | sh -s -- ${token}`, expiresMs }
    },

    invitations: () => cluster.invitations.list(),

    revokeInvitation(author, id) {
      mustAct(author)
      cluster.invitations.revoke(id, author.name)
      audit.write(author.name, 'token.revoke', id, '')
    },

    async join(author, token, discard = false) {
      mustAct(author)
      await deps.join(token, discard)
    },

    async drain(author, node) {
      setDrain(author, node, 'draining')
    },

    async undrain(author, node) {
      setDrain(author, node, 'accepting')
    },

    async leave(author, abandon) {
      mustAct(author)
      mustBelong()
      if (roster.peers().length === 0) throw alone()
      if (cluster.links.all().length === 0) throw unheard(cluster.nameOf(here))
      const name = cluster.nameOf(here)
      audit.write(author.name, 'node.leave', name, `${abandon ? 'at once, ' : ''}${counts()}`)
      if (abandon) roster.markLeft(here, author.name)
      else roster.setDrain(here, 'leaving', author.name)
      const leftMono = clock.monoMs() + LEFT_MS_MAX
      const isStaying = (): boolean => found(null).standing === 'member'
      while (isStaying() && clock.monoMs() < leftMono) await pause(clock, 50)
      if (isStaying()) throw stillLeaving(name, counts(), deps.remains().why)
      const deadlineMono = clock.monoMs() + TOLD_MS_MAX
      // Who has heard of it closes its link; who is slow acknowledges with its next beat.
      const linked = cluster.links.all().length
      const isTold = (): boolean =>
        cluster.links.all().length < linked ||
        roster.peers().some(({ node }) => cluster.sync.lagOf(node).rows === 0)
      while (!isTold() && clock.monoMs() < deadlineMono) await pause(clock, 50)
    },

    async removeNode(author, word): Promise<RemovedNode> {
      mustAct(author)
      mustBelong()
      const member = found(word)
      if (member.node === here) throw itself()
      if (member.standing === 'evicted') mustBeMember(member)
      const copies = deps.copiesOf(member.node)
      roster.evict(member.node, author.name)
      const held = deps.quarantine.countOf(member.node)
      audit.write(author.name, 'node.remove', member.name, `${held} held`)
      const sponsored = roster.admittedBy(member.node).map(({ name }) => name)
      const questions =
        sponsored.length === 0
          ? []
          : [`It let in ${sponsored.join(', ')}. Check that these are yours.`]
      const deadlineMono = clock.monoMs() + TAKEN_MS_MAX
      while (deps.copiesOf(member.node) > 0 && clock.monoMs() < deadlineMono) await pause(clock, 50)
      return {
        node: member.node,
        name: member.name,
        taken: copies - deps.copiesOf(member.node),
        held,
        renew: [...questions, ...RENEW],
      }
    },
  }
}

export function alarmsOf({
  cluster,
  changes,
}: Pick<ClusterPartDeps, 'cluster' | 'changes'>): readonly Alarm[] {
  const alarms: Alarm[] = []
  const clock = cluster.sync.clockTrouble()
  if (clock !== null) {
    alarms.push({
      kind: 'clock',
      message: clock,
      advice: 'Set the clock (`timedatectl set-ntp true`), or make the change on another node.',
    })
  }
  const config = changes.configTrouble()
  if (config !== null) alarms.push({ kind: 'config', ...config })
  for (const { node, kept, refused } of cluster.links.duplicates()) {
    alarms.push({
      kind: 'duplicate',
      message: `Two machines run as ${cluster.nameOf(node)}: ${kept.remote.host} is kept, ${refused.remote.host} is refused.`,
      advice: 'Stop the copy, and start it with --new-identity if it shall be a node of its own.',
    })
  }
  return alarms
}

function mustBeMember({ name, standing }: Member): void {
  if (standing === 'member') return
  const what = standing === 'left' ? 'has left the cluster' : 'was removed from the cluster'
  throw new RefusalError(
    'conflict',
    'node',
    `${name} ${what}.`,
    'Its name stays in the list; a new node takes its place.',
  )
}

function alone(): RefusalError {
  return new RefusalError(
    'conflict',
    null,
    'This node is alone: there is no cluster to leave.',
    'Stop it, and remove its data directory, to end it for good.',
  )
}

function unheard(name: string): RefusalError {
  return new RefusalError(
    'unavailable',
    null,
    'No other node answers, so none would hear that this one leaves.',
    `Leave when one answers; or stop this node, and "postern remove ${name}" on another one.`,
  )
}

function stillLeaving(name: string, counts: string, why: string | null): RefusalError {
  return new RefusalError(
    'conflict',
    null,
    `${name} is leaving, and still has: ${counts}.${why === null ? '' : ` ${why}`}`,
    'It leaves by itself as soon as other nodes have all of it; "postern status" shows when. "postern undrain" keeps it; --abandon leaves at once, and what only this node has is lost.',
  )
}

function itself(): RefusalError {
  return new RefusalError(
    'conflict',
    'node',
    'A node does not remove itself.',
    'Let it leave, or remove it on another node.',
  )
}
