/** Kept mails that a node with its initial settings refuses, each with the reply and the reason. */

export const REFUSALS: Readonly<Record<string, { readonly reply: string; readonly why: string }>> =
  {}
