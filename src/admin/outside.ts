/**
 * What this node knows of the world outside that somebody should look at: name servers that are
 * silent, lists in the DNS that cannot be believed, networks that it refuses. As alerts say it.
 */
import type { Clock } from '../base/clock.ts'
import { RefusalError } from '../base/errors.ts'
import type { ListTrouble } from '../base/list-names.ts'
import type { NamesTrouble } from '../base/nameserver.ts'
import { some } from '../base/prose.ts'
import type { Ban } from '../mail/accept/bans.ts'
import type { EngineHealth } from '../mail/inspect/contract.ts'
import type { Audit } from '../store/audit.ts'
import { mustAct } from './authorise.ts'
import type { Alert, ClusterAdmin } from './contract.ts'

export const OUTSIDE_KINDS = ['names', 'list', 'engine', 'ban'] as const
export type OutsideKind = (typeof OUTSIDE_KINDS)[number]

/** Read whenever somebody asks. */
export type Outside = {
  /** Null: they answer. */
  readonly names: () => NamesTrouble | null
  readonly lists: () => readonly ListTrouble[]
  readonly bans: () => readonly Ban[]
  /** Lets a network in again; false: it is not refused. Left out: nobody can be. */
  readonly lift?: (author: string, network: string) => boolean
  /** Scanners beside us that did not answer when they were asked last. */
  readonly engines: () => readonly EngineHealth[]
}

/** Without one: nothing is outside. */
export const NOTHING_OUTSIDE: Outside = {
  names: () => null,
  lists: () => [],
  bans: () => [],
  engines: () => [],
}

type BansPart = Pick<ClusterAdmin, 'bans' | 'liftBan'>

export function bansPart(deps: {
  readonly clock: Clock
  readonly audit: Pick<Audit, 'write'>
  readonly outside?: Outside
}): BansPart {
  const { clock, audit, outside = NOTHING_OUTSIDE } = deps
  return {
    bans: () =>
      outside.bans().map(({ network, leftMs }) => ({ network, untilMs: clock.wallMs() + leftMs })),
    liftBan(author, network) {
      mustAct(author)
      if (outside.lift?.(author.name, network) !== true) {
        throw new RefusalError(
          'notFound',
          'network',
          `${network} is not refused.`,
          'Write it as "postern ban list" does: an IPv4 address, or an IPv6 /64.',
        )
      }
      audit.write(author.name, 'ban.lift', network, '')
    },
  }
}

type Told = Pick<Alert, 'level' | 'title' | 'meaning' | 'advice' | 'command'> & {
  readonly kind: OutsideKind
  /** Null: since it was seen first. */
  readonly sinceMs: number | null
}

/** Networks and lists that are named; the rest is a number. */
const NAMED_MAX = 3

export function outsideAlerts(
  { names, lists, bans, engines }: Outside,
  node: string,
): readonly Told[] {
  const silent = names()
  const out = lists()
  const banned = bans()
  const mute = engines()
  return [
    ...(silent === null ? [] : [silentNames(silent, node)]),
    ...(out.length === 0 ? [] : [leftOut(out, node)]),
    ...(mute.length === 0 ? [] : [noAnswer(mute, node)]),
    ...(banned.length === 0 ? [] : [refused(banned)]),
  ]
}

function silentNames({ sinceMs, cause }: NamesTrouble, node: string): Told {
  return {
    kind: 'names',
    level: 'bad',
    sinceMs,
    title: `No name server answers ${node}`,
    meaning: `What has to be asked of a mail is not known, so it is not judged clean: senders are told to come again where a check needs the answer. Next hops that have a name are not found either. ${cause}.`,
    advice: 'See that the name servers run and can be reached, or enter others as dns.servers.',
    command: 'postern doctor',
  }
}

function leftOut(lists: readonly ListTrouble[], node: string): Told {
  const [first] = lists
  return {
    kind: 'list',
    level: 'warn',
    sinceMs: Math.min(...lists.map(({ sinceMs }) => sinceMs)),
    title: `${node} leaves out ${some(
      lists.map(({ zone }) => zone),
      NAMED_MAX,
    )}`,
    meaning: `${lists
      .slice(0, NAMED_MAX)
      .map(({ cause }) => cause)
      .join(' ')} Mail is judged without ${lists.length === 1 ? 'it' : 'them'}, and says so.`,
    advice: `It is tried again by itself. If ${first?.zone ?? 'it'} is gone for good, take it out of connection.lists and content.linkLists; a list that refuses public name servers needs a name server of your own in dns.servers.`,
    command: null,
  }
}

function noAnswer(engines: readonly EngineHealth[], node: string): Told {
  return {
    kind: 'engine',
    level: 'bad',
    sinceMs: Math.min(...engines.map(({ sinceMs }) => sinceMs)),
    title: `${some(
      engines.map(({ name }) => name),
      NAMED_MAX,
    )} ${engines.length === 1 ? 'does' : 'do'} not answer ${node}`,
    meaning: `What ${engines.length === 1 ? 'it' : 'they'} would say of a mail is unknown: the mail is asked for again, held or let on, as the line of each in engines.list says. ${engines
      .slice(0, NAMED_MAX)
      .map(({ name, cause }) => `${name}: ${cause}.`)
      .join(' ')}`,
    advice: 'See that it runs and can be reached from here, or take it out of engines.list.',
    command: null,
  }
}

function refused(bans: readonly Ban[]): Told {
  const [first] = bans
  const minutes = Math.ceil((first?.leftMs ?? 0) / 60_000)
  return {
    kind: 'ban',
    level: 'warn',
    sinceMs: null,
    title: `${some(
      bans.map(({ network }) => network),
      NAMED_MAX,
    )} ${bans.length === 1 ? 'is' : 'are'} refused on all nodes`,
    meaning: `Too many mails for recipients that nobody has came from there: somebody guesses addresses. It is over by itself, the last in ${minutes} min.`,
    advice:
      'Nothing has to be done. If it is a partner or a server of your own, lift it, and add it to limits.exempt.',
    command: bans.length === 1 ? `postern ban lift ${first?.network ?? ''}` : 'postern ban list',
  }
}

/** As another node is told of it; it says more itself. */
export function outsideTitle(kind: OutsideKind, node: string): string {
  switch (kind) {
    case 'names':
      return `No name server answers ${node}`
    case 'list':
      return `${node} leaves out a list in the DNS`
    case 'engine':
      return `A scanner does not answer ${node}`
    case 'ban':
      return `${node} refuses networks that guess recipients`
  }
}
