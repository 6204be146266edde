//! The damage that a self-test does, as data: each case says what is done to a copy, and where that is possible.
//! A case is found when any check that was green on the undamaged copy turns red.

/// One kind of damage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) damage: Damage,
}

/// What is done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Damage {
    /// Recovery does not get the last WAL segment that it needs.
    LoseSegment,
    /// Recovery stops before the target.
    StopShort,
    /// A table loses its second half, or all of it.
    TruncateRelation,
    /// One byte of a table's page is another.
    FlipPage,
    /// Some files of attachments are gone.
    DeleteAttachments,
    /// Some files of attachments hold something else.
    CorruptAttachments,
    /// The directory of attachments is empty.
    EmptyFilestore,
    /// Rows are changed, as the superuser.
    Sql(Sql),
    /// A mail server of production works again in a neutralised copy.
    ReviveMailServer,
}

/// A change by SQL. `{role}` and `{database}` stand for names of the copy, quoted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sql {
    /// Whether it is run in the Odoo database, or else in the maintenance database.
    pub(super) in_odoo: bool,
    /// A query for one boolean: whether there is anything to damage. One that fails says no.
    pub(super) possible: &'static str,
    pub(super) statements: &'static str,
    /// What is said where it is not possible.
    pub(super) otherwise: &'static str,
}

const JOURNAL: &str = "SELECT count(*) > 1 FROM public.account_move_line WHERE parent_state = 'posted' AND debit > 0";

pub(super) const CASES: &[Case] = &[
    Case { id: "wal-segment-lost", title: "a WAL segment that recovery needs is missing", damage: Damage::LoseSegment },
    Case { id: "stopped-short", title: "recovery stops before the target", damage: Damage::StopShort },
    Case { id: "relation-truncated", title: "a table's file is cut in half", damage: Damage::TruncateRelation },
    Case { id: "page-flipped", title: "one byte of a table's page is changed", damage: Damage::FlipPage },
    Case { id: "attachments-deleted", title: "files of attachments are deleted", damage: Damage::DeleteAttachments },
    Case {
        id: "attachments-corrupted",
        title: "files of attachments hold other bytes of the same number",
        damage: Damage::CorruptAttachments,
    },
    Case { id: "filestore-emptied", title: "the filestore is empty", damage: Damage::EmptyFilestore },
    Case {
        id: "role-removed",
        title: "a role of the cluster is gone",
        damage: Damage::Sql(Sql {
            in_odoo: false,
            possible: "SELECT {role} <> ''",
            statements: "SET allow_system_table_mods = on; DELETE FROM pg_authid WHERE rolname = {role}",
            otherwise: "the cluster has no role but its superuser",
        }),
    },
    Case {
        id: "mail-server-revived",
        title: "a mail server of production is active in the neutralised copy",
        damage: Damage::ReviveMailServer,
    },
    Case {
        id: "journal-item-shifted",
        title: "an item of a posted journal entry has another amount",
        damage: Damage::Sql(Sql {
            in_odoo: true,
            possible: JOURNAL,
            // Odoo 14 makes sure that the amount in the company's own currency goes with it.
            statements: "DO $$ DECLARE sets text := 'debit = debit + 100, balance = balance + 100'; BEGIN \
                IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'public.account_move_line'::regclass \
                             AND attname = 'amount_currency' AND NOT attisdropped) \
                THEN sets := sets || ', amount_currency = amount_currency + 100'; END IF; \
                EXECUTE 'UPDATE public.account_move_line SET ' || sets || ' WHERE id = \
                  (SELECT min(id) FROM public.account_move_line WHERE parent_state = ''posted'' AND debit > 0)'; END $$",
            otherwise: "there is no posted journal entry",
        }),
    },
    Case {
        id: "journal-item-moved",
        title: "an item of a posted journal entry stands on another account; every entry still balances",
        damage: Damage::Sql(Sql {
            in_odoo: true,
            possible: JOURNAL,
            statements: "UPDATE public.account_move_line l SET account_id = \
                           (SELECT max(o.account_id) FROM public.account_move_line o WHERE o.account_id <> l.account_id) \
                         WHERE l.id = (SELECT min(id) FROM public.account_move_line \
                                       WHERE parent_state = 'posted' AND debit > 0 AND account_id IS NOT NULL)",
            otherwise: "there is no posted journal entry",
        }),
    },
    Case {
        id: "clock-behind",
        title: "the newest work is older than it should be",
        damage: Damage::Sql(Sql {
            in_odoo: true,
            possible: "SELECT true",
            statements: "DO $$ DECLARE t record; BEGIN FOR t IN \
                SELECT n.nspname, c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
                  JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = 'public' AND c.relkind = 'r' AND NOT a.attisdropped \
                   AND a.attname IN ('create_date', 'write_date', 'lastcall') AND a.atttypid = 'timestamp'::regtype \
                LOOP EXECUTE format('UPDATE %I.%I SET %I = %I - interval ''400 days''', \
                                    t.nspname, t.relname, t.attname, t.attname); END LOOP; END $$",
            otherwise: "",
        }),
    },
    Case {
        id: "database-renamed",
        title: "the Odoo database came back under another name",
        damage: Damage::Sql(Sql {
            in_odoo: false,
            possible: "SELECT true",
            statements: "ALTER DATABASE {database} RENAME TO lifeboat_selftest_renamed",
            otherwise: "",
        }),
    },
];
