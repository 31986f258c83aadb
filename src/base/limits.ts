/**
 * Every numeric bound that nobody may set, with its unit in the name and the reason above it.
 * What an operator may set stands in config/schema.ts.
 */
import { assert } from './errors.ts'

/** Command line without CRLF. RFC 5321 section 4.5.3.1.4 asks for 512, DSN parameters (RFC 3461) and SMTPUTF8 for more. */
export const COMMAND_BYTES_MAX = 2_048
/** Input after the end of a command that a client may have pipelined before we read on. */
export const PIPELINE_BYTES_MAX = 64 * 1024
/** Octets of a path without brackets (RFC 5321 section 4.5.3.1.3). */
export const PATH_BYTES_MAX = 254
/** RFC 5321 section 4.5.3.1.1. */
export const LOCAL_PART_BYTES_MAX = 64
/** RFC 5321 section 4.5.3.1.2. */
export const DOMAIN_BYTES_MAX = 255
/** Recipients of one message that any client may give; RFC 5321 section 4.5.3.1.8 asks for 100. */
export const RECIPIENTS_FLOOR = 100
/** Message header, all lines. Postfix cuts at 102400; we hold or refuse, see mail/inspect. */
export const HEADER_BYTES_MAX = 256 * 1024

/**
 * A body goes to the spool in pieces of this size while it arrives, so memory stays bounded. One
 * that fits a piece is inspected and first delivered from memory, when memory allows. A piece with
 * its heads fits one frame of a link (65,535 bytes): in two a large mail with a copy cost its owner
 * an eighth more.
 */
export const PIECE_BYTES = 60 * 1024
/** All bodies kept in memory for their first attempt. */
export const CACHE_BYTES_MAX = 24 * 1024 * 1024
/** Bytes handed to the spool and not yet written, all sessions; beyond it sockets pause. */
export const SPOOL_BACKLOG_BYTES_MAX = 4 * 1024 * 1024
/** A spool segment. Smaller reclaims sooner, larger syncs fewer files. */
export const SEGMENT_BYTES = 16 * 1024 * 1024
/** Segments kept for marks alone (64 MB): a full disk still drains (design: mail.md, Names). */
export const MARK_SEGMENTS = 4
/** Messages in the queue of one node; beyond it 452. About 2.5 KB of memory each, 200 bytes more for each further recipient. */
export const QUEUE_MESSAGES_MAX = 500_000
/** Rows that one list call gives (product contract). */
export const LIST_MAX = 1_000

/** RFC 5321 section 4.5.4.1: give up after 4 to 5 days. The setting may not pass this. */
export const RETRY_AGE_MS_MAX = 7 * 86_400_000

assert(PIECE_BYTES < SEGMENT_BYTES / 8, 'a piece fits a segment many times')
assert(CACHE_BYTES_MAX > 64 * PIECE_BYTES, 'the cache holds many messages')
