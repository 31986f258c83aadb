/** Who this node is in its cluster: as it was, or as the join that it was told to make says. */

import { VERSION } from '../base/version.ts'
import type { Address, NodeOptions } from '../cli/world.ts'
import type { ClusterDeps, Self, StreamHandlers } from '../cluster/contract.ts'
import {
  clusterIdOf,
  type Joined,
  openIdentity,
  publicKeys,
  thisMachine,
} from '../cluster/identity.ts'
import { finishJoin, joinCluster, mayJoin } from '../cluster/join.ts'
import { PROTOCOL } from '../cluster/link.ts'
import { countMembers } from '../cluster/roster.ts'
import { readToken } from '../cluster/token.ts'
import { type NodeFile, storeNodeName } from '../config/local.ts'
import { isTombstone } from '../config/merge.ts'
import type { Replica } from '../store/replica.ts'
import type { Rows } from './stores.ts'

/** Where peers are listened for, TCP and UDP. */
const PEER_PORT = 7_946
/** New formats that this version reads. */
export const FEATURES: readonly string[] = []
/** Shared rows that a node keeps when it joins: its held mail. */
const KEPT_KINDS: readonly string[] = ['held']

/** Who this node is among others: its keys, its cluster, where it is reached. */
export type Seat = {
  readonly self: Self
  readonly clusterId: string
  readonly name: string
  readonly listen: Address
  readonly advertise: readonly Address[]
  /** It founded the cluster that it is in, and has what it knew. */
  readonly isFounder: boolean
  /** The settings of the cluster are still to be read from a peer. */
  readonly awaits: boolean
  /** @throws RefusalError when this node cannot join with that token at all */
  readonly mayJoin: (token: string, discard: boolean) => void
  /** Asks the issuer of a token to be let in; changes nothing here. */
  readonly ask: (token: string, discard: boolean, listen: Address) => Promise<Joined>
}

/** Before anything reads the shared rows: a join replaces them. */
export async function takeSeat(
  options: NodeOptions,
  given: {
    readonly file: NodeFile
    readonly rows: Rows
    readonly endpoints: { readonly smtp: string; readonly web: string }
  },
  seam: ClusterDeps,
): Promise<Seat> {
  const { dataDir, join } = options
  const { file, rows, endpoints } = given
  const { replica, issued } = rows
  const identity = openIdentity(dataDir, file.nodeId, {
    random: seam.random,
    machine: thisMachine(process.env),
    adopt: options.identity === 'adopt',
  })
  const self = {
    node: file.nodeId,
    keys: identity.keys,
    instance: replica.writer,
    epoch: file.epoch,
    version: VERSION,
  }
  const wanted = options.peer ?? { host: '0.0.0.0', port: PEER_PORT }
  // The issuer looks at the port that peers will dial: any port must be one before it is asked.
  const listen = join !== null && wanted.port === 0 ? await anyPort(wanted, seam) : wanted
  const { advertise } = options
  let { clusterId, awaits } = identity
  let name = file.name
  const standing = (discard: boolean) => ({
    clusterId,
    members: countMembers(replica),
    own: { operators: living(replica, 'operator'), domains: living(replica, 'domain') },
    discard,
  })
  const ask = (token: string, discard: boolean, at: Address): Promise<Joined> =>
    joinCluster(
      token,
      {
        self,
        ...standing(discard),
        listen: at,
        facts: { name, peer: advertise, ...endpoints, version: VERSION, features: FEATURES },
        protocol: PROTOCOL,
      },
      seam,
    )
  const take = (joined: Joined): void => {
    finishJoin(dataDir, joined, KEPT_KINDS, { state: replica, issued })
    clusterId = joined.clusterId
    awaits = true
    if (options.name === null) storeNodeName(dataDir, joined.name)
    name = options.name ?? joined.name
  }
  if (identity.joined !== null) take(identity.joined)
  // The option stays in units and scripts: used once, on the first start.
  if (join !== null && readToken(join).clusterId !== clusterId) {
    take(await ask(join, false, listen))
  }
  return {
    self,
    clusterId,
    name,
    listen,
    advertise,
    isFounder: !awaits && clusterIdOf(self.node, publicKeys(self.keys)) === clusterId,
    awaits,
    mayJoin: (token, discard) => mayJoin(readToken(token), standing(discard)),
    ask,
  }
}

async function anyPort({ host }: Address, { network }: ClusterDeps): Promise<Address> {
  const { port, close } = await network.listen({ host, port: 0 }, () => NOBODY)
  close()
  return { host, port }
}

const NOBODY: StreamHandlers = { received: () => {}, drained: () => {}, closed: () => {} }

/** How many there are of a kind; a key with a slash is a part of one. */
function living(replica: Replica, kind: string): number {
  return replica.list(kind).filter(({ key, state }) => !key.includes('/') && !isTombstone(state))
    .length
}
