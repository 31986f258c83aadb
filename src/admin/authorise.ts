/** Who may do what: an admin acts, a viewer looks. */
import { RefusalError } from '../base/errors.ts'
import { type MessageId, parseMessageId } from '../base/ids.ts'
import type { Author } from './contract.ts'

/** @throws RefusalError forbidden, naming the role that may */
export function mustAct(author: Author): void {
  if (author.role === 'admin') return
  throw new RefusalError(
    'forbidden',
    null,
    'A viewer may look and not change anything.',
    'Ask an operator with the role admin.',
  )
}

/** A message id as somebody typed or pasted it. @throws RefusalError notFound */
export function readMessageId(text: string): MessageId {
  const id = parseMessageId(text.trim().toLowerCase())
  if (id === null) throw unknownMessage(text)
  return id
}

export function unknownMessage(id: string): RefusalError {
  return new RefusalError(
    'notFound',
    'id',
    `There is no mail ${JSON.stringify(id.slice(0, 40))} here.`,
    'Copy the id from a list; mails older than the time they are kept are forgotten.',
  )
}
