/** Whether a recipient is there: by the directories of the settings, then by its next hop. */
import type { Snapshot } from '../../config/snapshot.ts'
import { parseAddress } from '../../message/address.ts'
import type { NextHop } from '../../message/nexthop.ts'
import type { SessionDeps } from './contract.ts'
import type { Directory } from './directory.ts'
import { mustExist } from './recipients.ts'

export type MailboxesDeps = {
  readonly directory: Pick<Directory, 'has'>
  /** False: the next hop says that there is no such mailbox. */
  readonly ask: (address: string, hops: readonly NextHop[]) => boolean | Promise<boolean>
}

/** Domains with a list of recipients of their own are not asked about: the list says it. */
export function mailboxes({ directory, ask }: MailboxesDeps): NonNullable<SessionDeps['exists']> {
  const asksHop = ({ settings }: Snapshot): boolean => settings['recipients.ask'] === 'on'
  return (recipient, snapshot) => {
    const name = parseAddress(recipient)?.domain ?? ''
    const domain = snapshot.domains.get(name)
    if (domain === undefined || domain.recipients !== null || mustExist(recipient)) return true
    const lines = snapshot.settings['ldap.directories']
    const only = snapshot.settings['ldap.domains']
    const isInside = lines.length > 0 && (only.length === 0 || only.includes(name))
    const inDirectory = isInside ? directory.has(recipient, lines) : true
    // At the same time: a session waits for one of them only.
    const atHop =
      inDirectory !== false && asksHop(snapshot) ? ask(recipient, domain.nextHops) : true
    if (typeof inDirectory === 'boolean' && typeof atHop === 'boolean') return inDirectory && atHop
    return Promise.all([inDirectory, atHop]).then((both) => both.every((isThere) => isThere))
  }
}
