/** The migrations of both databases in order. A released one is never edited, only followed. */
import state0001 from './state-0001-init.sql' with { type: 'text' }
import state0002 from './state-0002-shared.sql' with { type: 'text' }
import state0003 from './state-0003-invitation.sql' with { type: 'text' }
import state0004 from './state-0004-hidden.sql' with { type: 'text' }
import state0005 from './state-0005-fate.sql' with { type: 'text' }
import state0006 from './state-0006-held-holders.sql' with { type: 'text' }
import state0007 from './state-0007-sample.sql' with { type: 'text' }
import trace0001 from './trace-0001-init.sql' with { type: 'text' }
import trace0002 from './trace-0002-sighting.sql' with { type: 'text' }

export type Migration = { readonly tag: string; readonly sql: string }

export const STATE_MIGRATIONS: readonly Migration[] = [
  { tag: 'state-0001-init', sql: state0001 },
  { tag: 'state-0002-shared', sql: state0002 },
  { tag: 'state-0003-invitation', sql: state0003 },
  { tag: 'state-0004-hidden', sql: state0004 },
  { tag: 'state-0005-fate', sql: state0005 },
  { tag: 'state-0006-held-holders', sql: state0006 },
  { tag: 'state-0007-sample', sql: state0007 },
]

export const TRACE_MIGRATIONS: readonly Migration[] = [
  { tag: 'trace-0001-init', sql: trace0001 },
  { tag: 'trace-0002-sighting', sql: trace0002 },
]
