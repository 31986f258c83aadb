/** Kept mails that a node with its initial settings refuses, each with the reply and the reason. */

export const REFUSALS: Readonly<Record<string, { readonly reply: string; readonly why: string }>> =
  {
    'mail-parser__malformed__004.eml': {
      reply: '550 5.7.1',
      why: 'Readers see different parts, and there is no From, Date, Message-ID or Subject.',
    },
    'mail-parser__malformed__017.eml': {
      reply: '550 5.7.1',
      why: 'Readers see different parts, no Date or Message-ID, and an author at a domain like ours.',
    },
    'mail-parser__malformed__019.eml': {
      reply: '550 5.7.1',
      why: 'Readers see different parts, fields occur twice, and there is no From.',
    },
    'mail-parser__malformed__007.eml': {
      reply: '550 5.7.1',
      why: 'Boundaries that readers find at different places, and no From, Date or Message-ID: the score is above the limit.',
    },
  }
