/**
 * How other nodes stand to messages, on its way into the spool. Each mail with a copy changes that
 * twice, and nobody waits for it: many share one record, and what is over before that needs none.
 */
import type { MessageId, NodeId } from '../base/ids.ts'
import type { HolderState, Message } from './queued.ts'

/** Messages in one record: 29 bytes each. */
const NOTES_MAX = 1_000

type Note = { readonly message: Message; readonly state: HolderState | null }

type HolderNote = {
  readonly node: NodeId
  readonly state: HolderState | null
  readonly messages: readonly Message[]
}

export class HolderNotes {
  readonly #notes = new Map<NodeId, Map<MessageId, Note>>()

  /** The last word of a message and a node counts. */
  add(message: Message, node: NodeId, state: HolderState | null): void {
    let notes = this.#notes.get(node)
    if (notes === undefined) {
      notes = new Map()
      this.#notes.set(node, notes)
    }
    notes.set(message.id, { message, state })
  }

  /** A COMMIT of this message says who holds it from here on. */
  forget(id: MessageId): void {
    for (const notes of this.#notes.values()) notes.delete(id)
  }

  /** All that are still true and wanted, and they are gone. */
  *take(isWanted: (message: Message, state: HolderState | null) => boolean): Generator<HolderNote> {
    for (const [node, notes] of this.#notes) {
      this.#notes.delete(node)
      const byState = new Map<HolderState | null, Message[]>()
      for (const { message, state } of notes.values()) {
        if ((message.holders.get(node) ?? null) !== state || !isWanted(message, state)) continue
        const messages = byState.get(state)
        if (messages === undefined) byState.set(state, [message])
        else messages.push(message)
      }
      for (const [state, messages] of byState) {
        for (let at = 0; at < messages.length; at += NOTES_MAX) {
          yield { node, state, messages: messages.slice(at, at + NOTES_MAX) }
        }
      }
    }
  }
}
